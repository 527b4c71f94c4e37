"""Runs a sweep's plan in several processes of one thread each; locks decide which process does which run."""

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

from experiments.sweep import SweepStoppedError
from experiments.sweep_plan import SweepPlan, SweepRun, sweep_runs
from study.sweep_plans import plan_text
from training.signals import forwarded_stop_signals
from utils.config.differences import check_config
from utils.errors import UserError
from utils.files import PROJECT_ROOT, write_text

log = logging.getLogger(__name__)

WAIT = 10  # seconds between checks of runs in other processes


def run_plan(plan: SweepPlan, file: Path, workers: int) -> None:
    """Writes the plan to `file` and does its unfinished runs in `workers` processes of `main.py sweep` on the CPU.

    A run that one process has started is skipped by the others. Runs that a killed study left running are waited
    for.

    Raises:
        SweepStoppedError: stopped by a signal, after every run in progress was saved.
        UserError: runs failed, as the lines above say; or a run has other settings than the plan.
    """
    for run in sweep_runs(plan):
        if difference := _difference(run):
            raise UserError(f"{difference}; remove {run.folder.path}, or give the plan another output")
    write_text(file, plan_text(plan))
    while any(run.state != "done" for run in sweep_runs(plan)):
        _sweep(file, workers)
        if any(run.state != "done" for run in sweep_runs(plan)):
            log.info("%s: waiting for runs of another process", file)
            time.sleep(WAIT)


def _sweep(file: Path, workers: int) -> None:
    command = [sys.executable, str(PROJECT_ROOT / "main.py"), "sweep", "--plan", str(file.resolve()), "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes: list[subprocess.Popen] = []
    with forwarded_stop_signals(processes) as signals:
        # In their own session Ctrl-C does not reach the sweeps twice; a second signal would kill them.
        for _ in range(workers):
            processes.append(subprocess.Popen(command, cwd=PROJECT_ROOT, env=environment, start_new_session=True))
        statuses = [process.wait() for process in processes]
    if signals or SweepStoppedError.exit_code in statuses:  # a sweep that is still starting dies of the signal
        raise SweepStoppedError("stopped by a signal; the same command continues it")
    if any(statuses):
        raise UserError(f"{file}: runs failed, named above; the same command tries them again")


def _difference(run: SweepRun) -> str:
    """How the config of a run that has begun differs from the plan's; or "".

    More epochs count as well: with a cosine schedule, a run that is trained further is not the plan's.
    """
    path = run.folder.config
    if not path.is_file():
        return ""
    try:
        check_config(path, path.read_text(encoding="utf-8"), run.config(), path)
    except UserError as error:
        return str(error).rpartition("; ")[0]  # without the advice to resume the run
    return ""
