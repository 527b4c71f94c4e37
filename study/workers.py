"""Runs a sweep's plan in several processes of one thread each, which share its runs by their locks."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from experiments.sweep import STOPPED, Cell, SweepPlan, SweepStoppedError, cells
from study.plan import plan_text
from training.run import check_config
from training.signals import STOP_SIGNALS
from utils.config import Config
from utils.errors import UserError
from utils.files import write_text

log = logging.getLogger(__name__)

WAIT = 10  # seconds between two looks at runs of another process
ROOT = Path(__file__).resolve().parents[1]


def run_plan(plan: SweepPlan, file: Path, workers: int) -> None:
    """Writes the plan to `file` and runs what of it has no results, by `workers` times `main.py sweep` on the CPU.

    A run that one of them has begun is passed over by the others; what still runs in processes of an earlier `make
    study`, which was killed, is waited for.

    Raises:
        SweepStoppedError: a signal stopped it; every run in flight was saved.
        UserError: runs failed, the lines above say which; or a finished run is of other settings than the plan's.
    """
    for cell in cells(plan):
        _check_finished(cell)
    write_text(file, plan_text(plan))
    while any(cell.state != "done" for cell in cells(plan)):
        _sweep(file, workers)
        if any(cell.state != "done" for cell in cells(plan)):
            log.info("%s: waiting for runs of another process", file)
            time.sleep(WAIT)


def _sweep(file: Path, workers: int) -> None:
    command = [sys.executable, str(ROOT / "main.py"), "sweep", "--plan", str(file.resolve()), "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes: list[subprocess.Popen[bytes]] = []
    stopped: list[int] = []

    def hand_on(number: int, _: FrameType | None) -> None:
        stopped.append(number)
        for process in processes:
            process.send_signal(number)

    before = {number: signal.signal(number, hand_on) for number in STOP_SIGNALS}
    try:
        # A session of its own: else Ctrl-C would reach the sweeps twice, and a second one kills.
        for _ in range(workers):
            processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True))
        statuses = [process.wait() for process in processes]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stopped or STOPPED in statuses:  # a sweep that has only begun dies of the signal
        raise SweepStoppedError("stopped by a signal; the same command goes on")
    if any(statuses):
        raise UserError(f"{file}: runs failed, named above; the same command tries them again")


def _check_finished(cell: Cell) -> None:
    """Raises UserError for a finished run that is not the plan's, such as one of a learning rate chosen before."""
    path = cell.folder / "config.yaml"
    if cell.state != "done":
        return
    before = Config.from_yaml(path.read_text(encoding="utf-8"), str(path))  # options added since have their defaults
    try:
        check_config(path, before.to_yaml(), cell.config(), cell.folder)
    except UserError as error:
        difference = str(error).rpartition("; ")[0]
        raise UserError(f"{difference}; remove {cell.folder}, or give the plan another output") from None
