"""Runs a sweep: each run of a plan as a process of its own that can be resumed."""

import logging
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from datetime import timedelta
from pathlib import Path

from evaluation.results import read_run_results
from experiments.sweep_plan import SweepRun
from training.signals import StoppedError, forwarded_stop_signals
from utils.errors import UserError
from utils.files import PROJECT_ROOT, write_text
from utils.lock import is_locked

log = logging.getLogger(__name__)

MAIN = PROJECT_ROOT / "main.py"


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
        started, before = time.perf_counter(), run.folder.log.stat().st_size if run.folder.log.is_file() else 0
        log.info("%s: %s", title, "resumes" if run.state == "unfinished" else "starts")
        status = None if is_locked(run.folder.lock) else _run(run, device)
        if status == StoppedError.exit_code:
            raise SweepStoppedError(f"stopped by a signal in {run.name}; the same command continues it")
        # Two tasks of a job array may be given one run; the other may have finished it since.
        if status is None or (status and (is_locked(run.folder.lock) or run.state == "done")):
            log.info("%s: another process runs it", title)
            continue
        seconds.append(time.perf_counter() - started)
        if status:
            failures[run.name] = _last_error(run.folder.log, before, status)
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


def _last_error(output: Path, start: int, status: int) -> str:
    """The error in a run's output from byte `start` on, where this attempt began."""
    written = output.read_bytes()[start:] if output.is_file() else b""
    lines = written.decode("utf-8", errors="replace").splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    return errors[-1].removeprefix("error: ") if errors else f"exit status {status}; see {output}"
