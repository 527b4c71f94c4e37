"""Slices of a volume as cases: how MedSAM's npz files and nnU-Net's NIfTI files become 2-D images."""

from collections.abc import Callable
from functools import partial

import numpy as np

from datasets.converters.plan import Case, Pair

_DARKEST, _BRIGHTEST = 0.5, 99.5  # percentiles of a volume that become 0 and white


def slice_cases(stem: str, masks: np.ndarray, read: Callable[[int], Pair], split: str | None = None) -> list[Case]:
    """Return a case for each slice of a volume that holds a label; slices of one volume stay in one split.

    Args:
        masks: (D, H, W).
        read: returns image and mask of a slice; it must pickle.
    """
    numbers = np.flatnonzero(masks.reshape(len(masks), -1).any(axis=1)).tolist()
    width = len(str(len(masks) - 1))
    return [Case(f"{stem}_{i:0{width}d}", partial(read, i), split, stem) for i in numbers]


def to_16_bits(volume: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Scale `values`, part of a volume of any number type, to uint16, the same for all its slices."""
    low, high = np.percentile(volume, (_DARKEST, _BRIGHTEST))
    scaled = (values.astype(np.float64) - low) / max(high - low, np.finfo(np.float64).tiny)
    return np.rint(np.clip(scaled, 0, 1) * 65535).astype(np.uint16)
