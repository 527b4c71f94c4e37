"""Seeds of the global random generators, and kernels that give the same bits again."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from utils.errors import ConfigError


def seed_everything(seed: int) -> None:
    """Seeds the global generators of python, numpy and torch (all devices).

    Raises:
        ConfigError: a seed outside 0 to 2^32 - 1, numpy's range.
    """
    if not 0 <= seed < 2**32:
        raise ConfigError(f"seed: {seed} is outside 0 to 2^32 - 1")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def deterministic(on: bool) -> Iterator[None]:
    """A block in which torch uses deterministic kernels, if `on`.

    Warns of each GPU operation that has no such kernel.
    """
    if not on:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = benchmark
