"""The CPU cores of this process, and pools of workers that neither outlive their parent nor keep it waiting."""

import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor


def usable_cores() -> int:
    """The number of cores that this process may use; a scheduler may set it below the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def end_with_parent() -> None:
    """In a worker: ends it when its parent ends, for example by SIGKILL; the queue of work would never report that."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def end_workers(pool: ProcessPoolExecutor) -> None:
    """Kills the workers of a pool whose results are no longer needed, or are all there.

    `shutdown` alone would wait for them, and for ever if one was killed, out of memory for example, while it held the
    lock of the queue that the others report their end to. Python 3.14 has `pool.kill_workers()`.
    """
    for process in list((pool._processes or {}).values()):
        process.kill()
    pool.shutdown(cancel_futures=True)
