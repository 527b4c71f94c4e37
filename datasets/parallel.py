"""Applies a function to many items on all cores, with a progress bar."""

import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from tqdm import tqdm

from utils.errors import UserError
from utils.pools import end_with_parent, end_workers, usable_cores

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_MAX_CHUNK = 8


def parallel_map(
    function: Callable[[_Item], _Result], items: Sequence[_Item], title: str, unit: str = "image"
) -> list[_Result]:
    """Return `function` of every item, in order, computed by one process per core.

    `function` and the items must pickle. If items raise, the error of the first one in order is raised, as in a loop,
    and pending items are cancelled.

    Raises: what `function` raises; UserError if a worker process is killed, for example when memory runs out.
    """
    workers = min(usable_cores(), len(items))
    if workers < 2:
        return [function(item) for item in tqdm(items, desc=title, unit=unit, disable=None)]
    chunk = max(1, min(_MAX_CHUNK, len(items) // (4 * workers)))
    pool = ProcessPoolExecutor(workers, initializer=_prepare_worker)
    try:
        results = pool.map(function, items, chunksize=chunk)
        return list(tqdm(results, total=len(items), desc=title, unit=unit, disable=None))
    except BrokenProcessPool as error:
        raise UserError(f"{title}: a worker process was killed, perhaps out of memory; run it again") from error
    finally:
        end_workers(pool)


def _prepare_worker() -> None:
    """Leave Ctrl-C, which reaches every process of the terminal, to the parent, and end with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):  # not the parent's handlers
        signal.signal(number, signal.SIG_DFL)
    end_with_parent()
