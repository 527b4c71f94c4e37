"""Requests to stop: SIGTERM, SIGUSR1 (a cluster's warning before it ends a job) and Ctrl-C."""

import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from utils.errors import UserError

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
# Signals this close together are one request: a cluster signals every process of a job, and a parent hands on its own.
ONE_REQUEST_SECONDS = 1.0


class StoppedError(UserError):
    """A signal ended the run, which --resume takes up again (exit status 3)."""

    exit_code = 3


class StopRequests:
    """While active, notes the first stop signal instead of dying of it; a second one acts as it always does.

    Whoever works asks `requested` where it can stop. Where nothing can be lost, `at_once` stops without being asked.
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
            raise StoppedError(f"stopped by a signal {where}; go on with --resume auto")

    @contextmanager
    def at_once(self, where: str) -> Iterator[None]:
        """A block in which a signal raises StoppedError wherever the work is; `where` says when, for its message.

        Any other error that the signal leads to (a library that catches all, another process that is gone) is
        taken for it, and so is a signal that a library swallowed.
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
                if signal.getsignal(number) is signal.SIG_IGN:  # a shell starts its background jobs deaf to Ctrl-C
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
    """iter() of a data loader; its workers leave stop signals to this process: clusters signal all of a job.

    The workers inherit a mask that blocks them. `worker_init_fn` would come too late for a signal while they start, and
    a worker that dies then leaves the others running and this process waiting for them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        return iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
