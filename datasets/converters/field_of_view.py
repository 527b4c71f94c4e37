"""The field of view of a fundus photograph: the disc that the camera saw, without the black surround."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from scipy import ndimage

from datasets.converters.plan import binary_mask
from datasets.io import read_mask
from utils.errors import UserError

FieldOfView = Callable[[np.ndarray], np.ndarray]

_EIGHT_NEIGHBOURS = np.ones((3, 3), bool)


def from_file(path: Path) -> FieldOfView:
    """Return the function `Case.fov` for a file of 0 and one other value, which marks the inside."""
    return partial(_read, path)


def _read(path: Path, image: np.ndarray) -> np.ndarray:
    inside = binary_mask(read_mask(path), path)
    if inside.shape != image.shape[:2]:
        raise UserError(f"{path}: {inside.shape} pixels (height, width), but its image has {image.shape[:2]}")
    return inside


def by_threshold(threshold: int | None) -> FieldOfView | None:
    """Return the function `Case.fov` for a rule, or None without a threshold.

    The pixels whose brightest channel is above `threshold`; of these the largest 8-connected piece, its holes filled.
    """
    return None if threshold is None else partial(_brighter, threshold)


def _brighter(threshold: int, image: np.ndarray) -> np.ndarray:
    bright = image.reshape(*image.shape[:2], -1).max(axis=2) > threshold
    pieces, count = ndimage.label(bright, _EIGHT_NEIGHBOURS)
    if not count:
        raise UserError(f"--fov_threshold {threshold}: no pixel of an image is brighter; give a lower one")
    largest = 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    return ndimage.binary_fill_holes(pieces == largest)
