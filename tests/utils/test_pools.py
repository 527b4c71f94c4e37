"""Pools of workers end, whatever has happened to a worker."""

import threading
from concurrent.futures import ProcessPoolExecutor

from utils.pools import end_workers


def test_a_pool_ends_though_a_killed_worker_held_the_lock_of_its_queue():
    """`shutdown` waits for ever then: each worker reports its end, and needs the lock for that."""
    pool = ProcessPoolExecutor(2)
    assert list(pool.map(abs, [-1, 2, -3])) == [1, 2, 3]
    with pool._result_queue._wlock:  # as of a process that is no more
        ending = threading.Thread(target=end_workers, args=[pool], daemon=True)
        ending.start()
        ending.join(timeout=20)
        assert not ending.is_alive()
