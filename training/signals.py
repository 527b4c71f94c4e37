"""Stop signals: SIGTERM, SIGUSR1 (a cluster's warning before it ends a job) and Ctrl-C."""

import atexit
import multiprocessing
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

from utils.errors import UserError

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
# Signals this close together are one request: a cluster signals every process of a job, and a parent forwards its own.
ONE_REQUEST_SECONDS = 1.0


class StoppedError(UserError):
    """A signal ended the run, which --resume continues (exit status 3)."""

    exit_code = 3


class StopRequests:
    """While active, records the first stop signal instead of ending the process; a second one has its usual effect.

    Code asks `requested` where it can stop. Where nothing can be lost, `at_once` stops without being asked.
    """

    def __init__(self) -> None:
        self.requested = False
        self._first = 0.0
        self._immediate: str | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # others may not set handlers
            self._previous = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def check(self, where: str) -> None:
        """Raises StoppedError if a signal came."""
        if self.requested:
            raise StoppedError(f"stopped by a signal {where}; resume with --resume auto")

    @contextmanager
    def at_once(self, where: str) -> Iterator[None]:
        """Context manager: a signal raises StoppedError at once; `where` completes its message.

        An error of any other kind that follows the signal counts as the stop: a library may catch everything, or
        another process may have ended. So does a signal whose error a library swallowed.
        """
        self._immediate = where
        try:
            self.check(where)
            yield
        except StoppedError:
            raise
        except Exception:
            self.check(where)
            raise
        finally:
            self._immediate = None
        self.check(where)

    def _note(self, number: int, _: object) -> None:
        if self.requested:
            if time.monotonic() - self._first >= ONE_REQUEST_SECONDS:
                self._restore()
                if signal.getsignal(number) is signal.SIG_IGN:  # as in a shell's background job
                    signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            return
        self._first = time.monotonic()
        self.requested = True
        if self._immediate is not None:
            self.check(self._immediate)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}


def start_workers(loader: Iterable[Any]) -> Iterator[Any]:
    """iter() of a data loader whose workers ignore stop signals: a cluster signals every process of a job.

    The workers inherit a mask that blocks the signals. `worker_init_fn` would be too late for a signal that comes while
    they start; a worker that ends then leaves the others running and this process waiting for them.
    """
    atexit.unregister(_kill_workers)
    atexit.register(_kill_workers)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        return iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _kill_workers() -> None:
    """Ends workers that an error left running: multiprocessing would send SIGTERM, which they block, and wait."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises an error for a killed worker
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


@contextmanager
def forwarded_stop_signals(processes: Sequence[subprocess.Popen]) -> Iterator[list[int]]:
    """Context manager: sends the stop signals that this process gets on to `processes`, which may grow meanwhile.

    Yields the list of the signals so far.
    """
    received: list[int] = []

    def forward(number: int, _: FrameType | None) -> None:
        received.append(number)
        for process in processes:
            process.send_signal(number)  # does nothing where the process has ended

    before = {number: signal.signal(number, forward) for number in STOP_SIGNALS}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
