"""The CPU cores of this process."""

import os


def usable_cores() -> int:
    """The number of cores that this process may use; a scheduler may set it below the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
