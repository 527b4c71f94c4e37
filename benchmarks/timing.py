"""Ways of doing one thing, timed side by side in one process, and the record of it."""

import argparse
import gc
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from utils.environment import cpu_multiplies_bf16, environment_info
from utils.files import write_json, write_text

OUTPUT = Path("runs/bench")
CPU_FEATURES = ("cpu_name", "avx2", "avx512_f", "avx512_bf16", "amx_bf16")  # what decides a matrix product's speed
MIN_ROUNDS = 5  # of a result that counts; fewer are for trying out


@dataclass(frozen=True)
class Comparison:
    """The times of several ways of one case.

    Attributes:
        case: what was done.
        seconds: of each way, one a round, all in the same order.
        baseline: the way that the others are compared to.
        items: how many things one run does, for rates.
        notes: what else there is to say, ready for JSON: values that must agree, sizes.
        peak_mib: peak memory of each way, where it was measured.
    """

    case: str
    seconds: dict[str, list[float]]
    baseline: str
    items: int = 1
    notes: dict[str, Any] | None = None
    peak_mib: dict[str, float] | None = None

    def median(self, way: str) -> float:
        """Median seconds of one item."""
        return statistics.median(self.seconds[way]) / self.items

    def ratio(self, way: str) -> float:
        """How many times faster than the baseline: the median over the rounds of each round's own ratio.

        The ways of one round run right after one another, so that what slows the machine slows them alike.
        """
        pairs = zip(self.seconds[self.baseline], self.seconds[way], strict=True)
        return statistics.median(baseline / seconds for baseline, seconds in pairs)

    def record(self) -> dict[str, Any]:
        """The comparison as JSON: a case, and for each way the median, the range, the rate and the ratio."""
        ways = {
            way: {
                "ms": 1e3 * self.median(way),
                "ms_range": [1e3 * min(times) / self.items, 1e3 * max(times) / self.items],
                "per_second": 1 / self.median(way),
                "times_faster": self.ratio(way),
            }
            for way, times in self.seconds.items()
        }
        for way, size in (self.peak_mib or {}).items():
            ways[way] |= {"peak_mib": size, "peak_ratio": size / self.peak_mib[self.baseline]}
        rounds = len(self.seconds[self.baseline])
        return {"case": self.case, "baseline": self.baseline, "rounds": rounds, "ways": ways, **(self.notes or {})}


def interleaved(
    ways: Mapping[str, Callable[[], object]],
    rounds: int = MIN_ROUNDS,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
    synchronize: Callable[[], None] | None = None,
) -> dict[str, list[float]]:
    """Run each way once a round, every second round in reverse order; returns the seconds of each, a number a round.

    Args:
        ways: by name, what to run.
        rounds: how many times each way is timed.
        warmup: rounds before, which are not counted.
        clock: time.process_time counts the work of this process alone, for ways that stay on one core.
        synchronize: waits for a device to finish its work, such as torch.cuda.synchronize; called before each reading.
    """
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    wait = synchronize or (lambda: None)
    for number in range(-warmup, rounds):
        for way in ways if number % 2 == 0 else reversed(list(ways)):
            gc.collect()
            wait()
            start = clock()
            ways[way]()
            wait()
            elapsed = clock() - start
            if number >= 0:
                seconds[way].append(elapsed)
    return seconds


@contextmanager
def in_own_process(
    make: Callable[[], Callable[[], object]], environment: Mapping[str, str] | None = None
) -> Iterator[Callable[[], None]]:
    """What `make` gives, for `interleaved`, run each time in one process of its own.

    Ways that allocate much leave one another a heap that no run alone would have: on Linux its page faults can double
    the time of all that is not a matrix product. `environment` is added to the process' variables.

    Raises:
        ChildProcessError: when it fails; its traceback is printed.
    """
    processes = multiprocessing.get_context("spawn")
    here, there = processes.Pipe()
    process = processes.Process(target=_serve, args=(make, there), daemon=True)
    with _variables(environment or {}):
        process.start()
    there.close()

    def run() -> None:
        try:
            here.send(None)
            here.recv()
        except (EOFError, OSError):
            raise ChildProcessError("the process of a way ended; see above") from None

    try:
        yield run
    finally:
        here.close()
        process.join()


@contextmanager
def _variables(added: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in added}
    os.environ.update(added)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(make: Callable[[], Callable[[], object]], orders: Connection) -> None:
    way = make()
    with suppress(EOFError):  # nobody is left to order
        while True:
            orders.recv()
            way()
            orders.send(None)


def precisions() -> tuple[str, ...]:
    """The precisions worth timing here; says so where bf16 is not, which would take hours."""
    if cpu_multiplies_bf16():
        return "fp32", "bf16"
    print("bf16 is left out: torch has no fast products in it for this CPU", file=sys.stderr)
    return ("fp32",)


def markdown(comparisons: Sequence[Comparison]) -> str:
    """A Markdown table, a row for each way of each case."""
    with_peaks = any(comparison.peak_mib for comparison in comparisons)
    head = ["case", "way", "ms", "a second", "times faster", *(["peak MiB", "peak ratio"] if with_peaks else [])]
    lines = [_line(head), _line(["---", "---"] + ["---:"] * (len(head) - 2))]
    for comparison in comparisons:
        for way, each in comparison.record()["ways"].items():
            row = [comparison.case, way]
            row += [f"{each['ms']:.2f}", f"{each['per_second']:.1f}", f"{each['times_faster']:.2f}"]
            if with_peaks:
                row += [f"{each['peak_mib']:.0f}", f"{each['peak_ratio']:.2f}"]
            lines.append(_line(row))
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def publish(name: str, comparisons: Sequence[Comparison], output: Path) -> None:
    """Print the table and one line of JSON, and write both to `output`/<name>.md and .json."""
    record = {
        "benchmark": name,
        "environment": environment_info(torch.device("cpu")),
        "cpu": {name: torch.cpu.get_capabilities().get(name) for name in CPU_FEATURES},
        "threads": torch.get_num_threads(),
        "comparisons": [comparison.record() for comparison in comparisons],
    }
    table = markdown(comparisons)
    write_text(output / f"{name}.md", table)
    write_json(output / f"{name}.json", record)
    print(table)
    print(json.dumps(record, allow_nan=False))


def parser(description: str | None) -> argparse.ArgumentParser:
    """A command line with what every benchmark takes: --rounds and --output."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument("--rounds", type=int, default=2 * MIN_ROUNDS + 1, help="how many times each way is timed")
    result.add_argument("--output", type=Path, default=OUTPUT, help="folder of the table and the JSON")
    return result
