"""Measures memory: a process' peak, which needs a new process each time, and the bytes that tensors hold."""

import os
import subprocess
import sys
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# With these, glibc returns freed blocks at once, so that a process' size is what it uses.
RETURN_FREED = {"MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "1048576", "MALLOC_ARENA_MAX": "1"}
# With these it keeps them, as torch's allocator does on a GPU: a step then has next to no page faults.
KEEP_FREED = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
MEGABYTE = 2**20


def peak_rise(work: Callable[[], object]) -> int:
    """The bytes from this process' size before `work` to its peak after it. Linux only."""
    before = _status_bytes("VmRSS")
    work()
    return _status_bytes("VmHWM") - before


def in_new_process(command: Sequence[str]) -> int:
    """Runs Python with `command`, which prints a number of bytes last, and returns that."""
    environment = {**os.environ, **RETURN_FREED}
    done = subprocess.run([sys.executable, *command], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout.splitlines()[-1])


def _status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the storages that operations inside it allocate, until they are freed: `now` and `peak`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, weakref.ref] = {}

    def add(self, tensor: torch.Tensor) -> None:
        """Counts the storage of a tensor until it is freed, once if several tensors share it."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()
        self._known[key] = weakref.ref(storage, lambda _: self._freed(key, size))
        self.now += size
        self.peak = max(self.peak, self.now)

    def _freed(self, key: int, size: int) -> None:
        self._known.pop(key, None)
        self.now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.add(leaf)
        return result
