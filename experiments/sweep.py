"""A sweep: every row of a plan on every dataset with every seed, each a run of its own, taken up where it stopped."""

import fcntl
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from utils.config import Config, load_config
from utils.config.errors import first_error
from utils.config.schema import FilePath, Section
from utils.config.sources import Draft, read_yaml
from utils.errors import ConfigError, UserError
from utils.files import read_json

log = logging.getLogger(__name__)

STOPPED = 3  # exit status of a run that a signal stopped
Names = Annotated[list[str], Field(min_length=1)]


class RowPlan(Section):
    """A row: its model config, its base weights, overrides of its own, and datasets where it has not all of them."""

    model_config_path: Annotated[FilePath, Field(alias="model_config")]
    pretrained_path: FilePath | None = None
    overrides: list[str] = Field([])
    datasets: Names | None = None


class SweepPlan(Section):
    """What to run: rows x datasets x seeds. `overrides` are `section.key=value` texts for all of them."""

    output: FilePath
    seeds: list[Annotated[int, Field(ge=0)]] = Field([0], min_length=1)
    datasets: Annotated[dict[str, FilePath], Field(min_length=1)]
    rows: Annotated[dict[str, RowPlan], Field(min_length=1)]
    overrides: list[str] = Field([])


@dataclass(frozen=True)
class Cell:
    """One run of a sweep: a row on a dataset with a seed."""

    row: str
    dataset: str
    seed: int
    plan: SweepPlan

    @property
    def name(self) -> str:
        """row/dataset/seed, which is also its folder below the plan's output."""
        return f"{self.row}/{self.dataset}/{self.seed}"

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.plan.output / self.name

    @property
    def state(self) -> str:
        """ "done", "unfinished" (can be resumed) or "to do"."""
        if (self.folder / "results.json").is_file():
            return "done"
        return "unfinished" if (self.folder / "last").is_dir() else "to do"

    def arguments(self, device: str) -> list[str]:
        """The command line of `main.py train` for this run."""
        row = self.plan.rows[self.row]
        arguments = ["train", "--data_config", str(self.plan.datasets[self.dataset])]
        arguments += ["--model_config", str(row.model_config_path), "--seed", str(self.seed), "--device", device]
        arguments += ["--save_path", str(self.folder / "model.safetensors")]
        if row.pretrained_path is not None:
            arguments += ["--pretrained_path", str(row.pretrained_path)]
        arguments += ["--resume", "auto"]
        if overrides := [*self.plan.overrides, *row.overrides]:
            arguments += ["--set", *overrides]
        return arguments

    def config(self) -> Config:
        """The resolved config of this run. Raises: ConfigError, or UserError for missing weights, as the run would."""
        row = self.plan.rows[self.row]
        overrides = [*self.plan.overrides, *row.overrides]
        return load_config(
            row.model_config_path, self.plan.datasets[self.dataset], overrides, None, row.pretrained_path, self.seed
        )


def read_plan(path: Path) -> SweepPlan:
    """Reads a plan. Raises: ConfigError that names file, key and mend."""
    draft = Draft()
    draft.add(read_yaml(path), str(path))
    try:
        return SweepPlan.model_validate(draft.values)
    except ValidationError as error:
        raise ConfigError(first_error(error, SweepPlan, draft)) from error


def cells(plan: SweepPlan, only: Sequence[str] = ()) -> list[Cell]:
    """The runs of a plan whose names match one of `only` (fnmatch patterns; none: all), a dataset after the other.

    Raises: ConfigError for a pattern without match, or a row with a dataset that the plan does not have.
    """
    for name, row in plan.rows.items():
        if unknown := set(row.datasets or ()) - set(plan.datasets):
            raise ConfigError(f"row {name}: no dataset {sorted(unknown)[0]}; the plan has {', '.join(plan.datasets)}")
    every = [
        Cell(row, dataset, seed, plan)
        for dataset in plan.datasets
        for seed in plan.seeds
        for row, settings in plan.rows.items()
        if settings.datasets is None or dataset in settings.datasets
    ]
    for pattern in only:
        if not any(fnmatchcase(cell.name, pattern) for cell in every):
            raise ConfigError(f"--only {pattern}: matches no run, such as {every[0].name}")
    return [cell for cell in every if not only or any(fnmatchcase(cell.name, pattern) for pattern in only)]


def sweep(chosen: Sequence[Cell], device: str = "auto") -> dict[str, str]:
    """Runs what has no results yet, each in a process of its own with its output in log.txt of its folder.

    A run that fails is passed over. A signal is handed to the run, which saves and stops, and the sweep with it.

    Returns:
        What went wrong, by run.

    Raises:
        ConfigError: a run's config is wrong; checked for all of them before the first one starts.
        SweepStoppedError: a signal stopped it.
    """
    for cell in chosen:
        cell.config()
    failures: dict[str, str] = {}
    for number, cell in enumerate(chosen, 1):
        title = f"[{number}/{len(chosen)}] {cell.name}"
        if cell.state == "done":
            log.info("%s: done before", title)
            continue
        started = time.perf_counter()
        log.info("%s: %s", title, "goes on" if cell.state == "unfinished" else "starts")
        with _only_one(cell.folder) as mine:
            if not mine:
                log.info("%s: another process runs it", title)
                continue
            status = _run(cell.arguments(device), cell.folder / "log.txt")
        if status == STOPPED:
            raise SweepStoppedError(f"stopped by a signal in {cell.name}; the same command goes on")
        if status:
            failures[cell.name] = _last_error(cell.folder / "log.txt", status)
            log.warning("%s: failed: %s", title, failures[cell.name])
        else:
            dice = read_json(cell.folder / "results.json")["last"]["img_size"]["dice"]["mean"]
            log.info("%s: Dice %.4f in %.0f s", title, dice, time.perf_counter() - started)
    return failures


class SweepStoppedError(UserError):
    """A signal ended a sweep (exit status 3)."""

    exit_code = STOPPED


@contextmanager
def _only_one(folder: Path) -> Iterator[bool]:
    """Yields whether no other process runs in `folder`: two tasks of a job array may be given one run."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
        (folder / "lock").unlink(missing_ok=True)


def _run(arguments: Sequence[str], output: Path) -> int:
    """Runs main.py's command in a child, hands signals on to it, and returns its exit status."""
    context = multiprocessing.get_context(_start_method())
    child = context.Process(target=_child, args=(list(arguments), output))
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    child.start()

    def hand_on(number: int, _: object) -> None:
        if child.pid and child.is_alive():
            os.kill(child.pid, number)

    try:
        for number in numbers:
            signal.signal(number, hand_on)
        child.join()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return child.exitcode or 0


def _start_method() -> str:
    """ "fork" in main.py's own process, which has everything imported and nothing computed; elsewhere "spawn", since
    torch's threads do not survive a fork."""
    program = getattr(sys.modules["__main__"], "__file__", None)
    of_ours = Path(__file__).resolve().with_name("main.py")
    if sys.platform != "linux" or program is None or Path(program).resolve() != of_ours:
        return "spawn"
    from experiments import experiment  # noqa: F401  (imported here once, and not by every child)

    return "fork"


def _child(arguments: list[str], output: Path) -> None:
    # Python's own streams, and what libraries write past them.
    sys.stdout = sys.stderr = file = open(output, "a", buffering=1, encoding="utf-8")  # noqa: SIM115
    for descriptor in (1, 2):
        os.dup2(file.fileno(), descriptor)
    logging.root.handlers.clear()  # they write to the parent's stream
    from main import main

    status = main(arguments)
    file.flush()
    os._exit(status)  # not sys.exit: the parent's own clean-up is not the child's affair


def _last_error(output: Path, status: int) -> str:
    lines = output.read_text(encoding="utf-8", errors="replace").splitlines() if output.is_file() else []
    errors = [line for line in lines if line.startswith("error: ")]
    return errors[-1].removeprefix("error: ") if errors else f"exit status {status}; see {output}"
