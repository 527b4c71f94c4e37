"""How far work raises a process' memory, and what becomes of memory that it frees.

Each measurement of a peak wants a process of its own, since peaks don't fall.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

# glibc then gives freed blocks back at once, so that a process' size is what it uses.
RETURN_FREED = {"MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "1048576", "MALLOC_ARENA_MAX": "1"}
# And with these it keeps them for itself, as torch's allocator on a GPU does: a step then has next to no page faults.
KEEP_FREED = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
MEGABYTE = 2**20


def peak_rise(work: Callable[[], object]) -> int:
    """The bytes by which `work` raises the peak of this process over its size at the start. Linux only."""
    before = _status_bytes("VmRSS")
    work()
    return _status_bytes("VmHWM") - before


def in_new_process(command: Sequence[str]) -> int:
    """Runs Python with `command`, which prints such a number, and returns it."""
    environment = {**os.environ, **RETURN_FREED}
    done = subprocess.run([sys.executable, *command], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout.splitlines()[-1])


def _status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024
