"""Times several ways of doing the same thing in turns, and writes the comparison as JSON and Markdown."""

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

from utils.device import cpu_multiplies_bf16
from utils.environment import environment_info
from utils.files import write_json, write_text

OUTPUT = Path("runs/bench")
CPU_FEATURES = ("cpu_name", "avx2", "avx512_f", "avx512_bf16", "amx_bf16")  # the instructions for matrix products
MIN_ROUNDS = 5  # of a result to report


@dataclass(frozen=True)
class Comparison:
    """The times of several ways of doing the same thing.

    Attributes:
        case: what was done.
        seconds: for each way, the seconds of each round.
        baseline: the way that the others are compared with.
        items: the number of items that one run handles, for rates.
        notes: other values to record, ready for JSON.
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
        """How many times faster than the baseline: the median of the rounds' ratios.

        The ways of a round run one after the other, so that other load on the machine slows them alike.
        """
        pairs = zip(self.seconds[self.baseline], self.seconds[way], strict=True)
        return statistics.median(baseline / seconds for baseline, seconds in pairs)

    def record(self) -> dict[str, Any]:
        """The comparison as JSON: for each way the median, the range, the rate and the ratio."""
        ways = {
            way: {
                "ms": 1e3 * self.median(way),
                "ms_range": [1e3 * min(times) / self.items, 1e3 * max(times) / self.items],
                "per_second": 1 / self.median(way),
                "times_faster": self.ratio(way),
            }
            for way, times in self.seconds.items()
        }
        peaks = self.peak_mib or {}
        for way, size in peaks.items():
            ways[way] |= {"peak_mib": size, "peak_ratio": size / peaks[self.baseline]}
        rounds = len(self.seconds[self.baseline])
        return {"case": self.case, "baseline": self.baseline, "rounds": rounds, "ways": ways, **(self.notes or {})}


def interleaved(
    ways: Mapping[str, Callable[[], object]],
    rounds: int = MIN_ROUNDS,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Runs each way once a round, in reverse order every second round. Returns the seconds of each way by round.

    Args:
        ways: functions by name.
        rounds: how many times each way is timed.
        warmup: rounds before them that are not timed.
        clock: returns seconds.
    """
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(-warmup, rounds):
        for way in ways if number % 2 == 0 else reversed(list(ways)):
            gc.collect()
            start = clock()
            ways[way]()
            elapsed = clock() - start
            if number >= 0:
                seconds[way].append(elapsed)
    return seconds


@contextmanager
def in_own_process(
    make: Callable[[], Callable[[], object]], environment: Mapping[str, str] | None = None
) -> Iterator[Callable[[], None]]:
    """A function for `interleaved` that runs the function made by `make` in a process of its own, the same each time.

    In one process, the heap that one way leaves behind changes the page faults, and so the time, of the next.
    `environment` is added to the process' variables.

    Raises:
        ChildProcessError: the process failed; its traceback is printed.
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
            raise ChildProcessError("the process of a benchmark ended; see above") from None

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
    with suppress(EOFError):  # the other end was closed
        while True:
            orders.recv()
            way()
            orders.send(None)


def precisions() -> tuple[str, ...]:
    """The precisions to time on this CPU. bf16 is left out, with a message, where it would take hours."""
    if cpu_multiplies_bf16():
        return "fp32", "bf16"
    print("bf16 is left out: torch has no fast bf16 matrix products on this CPU", file=sys.stderr)
    return ("fp32",)


def markdown(comparisons: Sequence[Comparison]) -> str:
    """A Markdown table with a row for each way of each case."""
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
    """Prints the table and one line of JSON, and writes both to `output`/<name>.md and .json."""
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
    """A command line with the options of every benchmark: --rounds and --output."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument("--rounds", type=int, default=2 * MIN_ROUNDS + 1, help="how many times each way is timed")
    result.add_argument("--output", type=Path, default=OUTPUT, help="folder of the table and the JSON")
    return result
