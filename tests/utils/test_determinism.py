"""Seeds of the global random generators."""

import random

import numpy as np
import pytest
import torch

from utils.determinism import seed_everything
from utils.errors import ConfigError


def draw():
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_a_seed_repeats_every_generator():
    seed_everything(5)
    first = draw()
    seed_everything(6)
    other = draw()
    seed_everything(5)
    assert draw() == first
    assert all(a != b for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(ConfigError, match=f"seed: {seed} "):
        seed_everything(seed)


@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_the_ends_of_the_range_are_seeds(seed):
    seed_everything(seed)
