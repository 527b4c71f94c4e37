"""One function over many items on all cores, with a progress bar."""

import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from tqdm import tqdm

from utils.cores import usable_cores
from utils.errors import UserError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_MAX_CHUNK = 8


def parallel_map(
    function: Callable[[_Item], _Result], items: Sequence[_Item], title: str, unit: str = "image"
) -> list[_Result]:
    """Return `function` of every item, in order, computed by one process a core.

    `function` and the items must pickle. The first item, in order, that raises ends the work with its error, as a loop
    would; what hasn't begun is dropped.

    Raises: what `function` raises; UserError if a process is killed from outside, as when memory runs out.
    """
    workers = min(usable_cores(), len(items))
    if workers < 2:
        return [function(item) for item in tqdm(items, desc=title, unit=unit, disable=None)]
    chunk = max(1, min(_MAX_CHUNK, len(items) // (4 * workers)))
    with ProcessPoolExecutor(workers, initializer=_ignore_interrupts) as pool:
        try:
            results = pool.map(function, items, chunksize=chunk)
            return list(tqdm(results, total=len(items), desc=title, unit=unit, disable=None))
        except BrokenProcessPool as error:
            raise UserError(f"{title}: a worker process was killed; was memory short? Run it again") from error
        finally:
            pool.shutdown(cancel_futures=True)


def _ignore_interrupts() -> None:
    """Ctrl-C reaches every process of the terminal; the parent alone acts on it, so that there is one message."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
