"""A sweep: every row of a plan on every dataset with every seed, each a run of its own that can be resumed."""

import logging
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from evaluation.results import read_run_results
from training.run_folder import RunFolder
from training.signals import StoppedError, forwarded_stop_signals
from utils.config import Config, load_config
from utils.config.errors import read_as
from utils.config.options import FilePath
from utils.config.schema import Section
from utils.errors import ConfigError, UserError
from utils.files import PROJECT_ROOT, find_path, write_text
from utils.lock import is_locked

log = logging.getLogger(__name__)

MAIN = PROJECT_ROOT / "main.py"
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
class SweepRun:
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
    def folder(self) -> RunFolder:
        """The run's folder."""
        return RunFolder(self.plan.output / self.name)

    @property
    def state(self) -> Literal["done", "changed", "unfinished", "to do"]:
        """Whether it is finished, was begun with another config than the plan's, can be resumed, or has to start."""
        status = self.folder.status
        if self.folder.config.is_file() and self.changes:
            return "changed"
        if status == "finished":
            return "unfinished" if self.wants_more_epochs else "done"
        return "unfinished" if status == "unfinished" else "to do"

    @property
    def wants_more_epochs(self) -> bool:
        """Whether the plan has more epochs than the finished run, which can go on."""
        folder = self.folder
        return bool(folder.config.is_file() and folder.check_config(self.config()) and folder.states.states())

    @property
    def changes(self) -> str:
        """The keys of the config that the plan has changed since the run in the folder began; else empty."""
        try:
            self.folder.check_config(self.config())
        except UserError as error:
            return str(error)
        return ""

    @property
    def save_path(self) -> Path:
        """The final weights."""
        return self.folder.path / "model.safetensors"

    def arguments(self, device: str) -> list[str]:
        """The command line of `main.py train` for this run."""
        row = self.plan.rows[self.row]
        arguments = ["train", "--data_config", str(self.plan.datasets[self.dataset])]
        arguments += ["--model_config", str(row.model_config_path), "--seed", str(self.seed), "--device", device]
        arguments += ["--save_path", str(self.save_path), "--resume", "auto"]
        if row.pretrained_path is not None:
            arguments += ["--pretrained_path", str(row.pretrained_path)]
        if overrides := [*self.plan.overrides, *row.overrides]:
            arguments += ["--set", *overrides]
        return arguments

    def config(self) -> Config:
        """The resolved config of this run. Raises: ConfigError, or UserError for missing weights, as the run would."""
        row = self.plan.rows[self.row]
        files = row.model_config_path, self.plan.datasets[self.dataset]
        return load_config(*files, [*self.plan.overrides, *row.overrides], None, row.pretrained_path, self.seed)


def read_plan(path: Path) -> SweepPlan:
    """Reads a plan; relative paths of configs start at it, or as in configs. Raises: ConfigError."""
    plan = read_as(SweepPlan, path := find_path(path))
    rows = {name: row.model_copy(update=_found(row, path.parent)) for name, row in plan.rows.items()}
    datasets = {name: find_path(file, path.parent) for name, file in plan.datasets.items()}
    return plan.model_copy(update={"datasets": datasets, "rows": rows})


def _found(row: RowPlan, folder: Path) -> dict[str, Path]:
    paths = {"model_config_path": row.model_config_path, "pretrained_path": row.pretrained_path}
    return {key: find_path(path, folder) for key, path in paths.items() if path is not None}


def sweep_runs(plan: SweepPlan, only: Sequence[str] = ()) -> list[SweepRun]:
    """The runs of a plan whose names match one of `only` (fnmatch patterns; none: all), one dataset after the other.

    Raises: ConfigError for a pattern without match, or a row with a dataset that the plan does not have.
    """
    for name, row in plan.rows.items():
        if unknown := set(row.datasets or ()) - set(plan.datasets):
            raise ConfigError(f"row {name}: no dataset {sorted(unknown)[0]}; the plan has {', '.join(plan.datasets)}")
    runs = [
        SweepRun(row, dataset, seed, plan)
        for dataset in plan.datasets
        for seed in plan.seeds
        for row, settings in plan.rows.items()
        if settings.datasets is None or dataset in settings.datasets
    ]
    for pattern in only:
        if not any(fnmatchcase(run.name, pattern) for run in runs):
            raise ConfigError(f"--only {pattern}: matches no run, such as {runs[0].name}")
    return [run for run in runs if not only or any(fnmatchcase(run.name, pattern) for pattern in only)]


def sweep(runs: Sequence[SweepRun], device: str = "auto", force: bool = False) -> dict[str, str]:
    """Runs what is not finished, each as a process of main.py with its output in log.txt of its folder.

    A run in whose folder is one of another config fails, or, with `force`, replaces that one.

    A run that fails is left behind and the next one starts. A signal is sent on to the run, which saves and stops; the
    sweep then stops too.

    Returns:
        What went wrong, by run.

    Raises:
        ConfigError: a run's config is wrong; all are checked before the first run starts.
        SweepStoppedError: a signal stopped it.
    """
    for run in runs:
        run.config()
    failures: dict[str, str] = {}
    seconds: list[float] = []
    log.info("%d runs: %s", len(runs), _progress(runs, failures, seconds))
    for number, run in enumerate(runs, 1):
        title = f"[{number}/{len(runs)}] {run.name}"
        if run.state == "done":
            if problem := _name_row(run):
                failures[run.name] = problem
            log.info("%s: %s", title, problem or "done before")
            continue
        if run.state == "changed":
            if not force:
                failures[run.name] = f"{run.changes}, or replace the run by --force"
                log.warning("%s: %s", title, failures[run.name])
                continue
            run.folder.remove(run.save_path)
        started = time.perf_counter()
        log.info("%s: %s", title, "resumes" if run.state == "unfinished" else "starts")
        status = None if is_locked(run.folder.lock) else _run(run, device)
        if status is None or (status and is_locked(run.folder.lock)):  # two tasks of a job array may be given one run
            log.info("%s: another process runs it", title)
            continue
        if status == StoppedError.exit_code:
            raise SweepStoppedError(f"stopped by a signal in {run.name}; the same command continues it")
        seconds.append(time.perf_counter() - started)
        if status:
            failures[run.name] = _last_error(run.folder.log, status)
            log.warning("%s: failed: %s", title, failures[run.name])
        else:
            dice = read_run_results(run.folder.path).last.img_size.dice.mean
            log.info("%s: Dice %.4f in %.0f s", title, dice, seconds[-1])
        log.info("%s", _progress(runs, failures, seconds))
    return failures


def _name_row(run: SweepRun) -> str:
    """Writes the row of a finished run into its folder, as earlier versions did not; returns what is wrong with it."""
    try:
        read_run_results(run.folder.path)
    except UserError as error:
        return f"{error}; remove {run.folder.path} to run it again"
    if not run.folder.row.is_file():
        write_text(run.folder.row, f"{run.row}\n")
    return ""


def _progress(runs: Sequence[SweepRun], failures: Collection[str], seconds: Sequence[float]) -> str:
    """ "3 done, 1 failed, 8 left, about 0:20:00", from the seconds of each run that this sweep has started."""
    done = sum(run.folder.status == "finished" and run.name not in failures for run in runs)
    left = len(runs) - done - len(failures)
    mean = sum(seconds) / len(seconds) if seconds else 0.0
    about = f", about {timedelta(seconds=round(mean * left))}" if mean and left else ""
    return f"{done} done, {len(failures)} failed, {left} left{about}"


class SweepStoppedError(UserError):
    """A signal ended a sweep (exit status 3)."""

    exit_code = StoppedError.exit_code


def _run(run: SweepRun, device: str) -> int:
    """Runs main.py, appends its output to log.txt of the run, and returns its exit status."""
    processes: list[subprocess.Popen] = []
    run.folder.path.mkdir(parents=True, exist_ok=True)
    write_text(run.folder.row, f"{run.row}\n")
    command = [sys.executable, str(MAIN), *run.arguments(device)]
    with run.folder.log.open("ab") as file, forwarded_stop_signals(processes) as signals:
        processes.append(subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT))
        for number in signals:  # of before the process was there
            processes[0].send_signal(number)
        status = processes[0].wait()
    return StoppedError.exit_code if signals and status else status


def _last_error(output: Path, status: int) -> str:
    lines = output.read_text(encoding="utf-8", errors="replace").splitlines() if output.is_file() else []
    errors = [line for line in lines if line.startswith("error: ")]
    return errors[-1].removeprefix("error: ") if errors else f"exit status {status}; see {output}"
