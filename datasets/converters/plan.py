"""What a converter returns: the cases of a set and how to split them. Nothing is written yet."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from datasets.io import read_image, read_mask
from datasets.masks import check_size
from utils.errors import ConfigError, UserError

# Image (H, W) or (H, W, 3), uint8 or uint16, and its mask (H, W): bool is written as 0/255, integers as they are.
Pair = tuple[np.ndarray, np.ndarray]

_MAX_LABELS = 64  # a mask with more values is taken for a photograph


@dataclass(frozen=True)
class Case:
    """One image with its mask.

    Attributes:
        stem: of the two files to be written; unique in the set.
        read: returns the pair. It runs in another process, so it is a module's function, or a `partial` of one.
        split: train, val or test if the converter decides it; None if it is drawn.
        group: cases of one group (a patient) go to the same split; None is a group of its own.
        fov: returns the field of view of an image (H, W) or (H, W, 3), as (H, W) bool; None where the set has none.
    """

    stem: str
    read: Callable[[], Pair]
    split: str | None = None
    group: str | None = None
    fov: Callable[[np.ndarray], np.ndarray] | None = None

    @property
    def name(self) -> str:
        """The image's file name in the set."""
        return f"{self.stem}.png"


@dataclass(frozen=True)
class Plan:
    """A set to be written.

    Attributes:
        cases: in the order of the split file.
        split_sizes: how many of the cases without a split go to each split.
        notes: further entries of the summary and of dataset.json, such as counts.
        lines: text to show to the user.
        labels: name of each foreground value, for the data.yaml that own data gets. Where it is empty, the values
            found are named; None writes no data.yaml.
    """

    cases: Sequence[Case]
    split_sizes: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    lines: Sequence[str] = ()
    labels: Mapping[int, str] | None = None


def fraction_sizes(number: int, test_fraction: float, val_fraction: float) -> dict[str, int]:
    """Return how many of `number` images go to each split; a fraction above 0 gets at least one image.

    Raises: ConfigError for fractions that leave no image for training; UserError for too few images.
    """
    if not (0 <= test_fraction < 1 and 0 <= val_fraction < 1 and test_fraction + val_fraction < 1):
        raise ConfigError("--test_fraction and --val_fraction must be at least 0 and leave some images for training")
    test, val = (max(1, round(number * part)) if part else 0 for part in (test_fraction, val_fraction))
    if test + val >= number:
        raise UserError(f"{number} pairs cannot be split into train, {val} val and {test} test; lower the fractions")
    return {"train": number - test - val, "val": val, "test": test}


def own_labels(values: np.ndarray, path: Path, threshold: int | None) -> np.ndarray:
    """Return a user's mask as it is to be written: values kept, or bool where there is a threshold.

    Raises: UserError for values that are no labels.
    """
    if threshold is not None:
        return values > threshold
    found = np.unique(values)
    if len(found) > _MAX_LABELS or found[0] < 0 or found[-1] > 255:
        raise UserError(
            f"{path}: {len(found)} values from {found[0]} to {found[-1]} are not labels; is it a JPEG or a probability "
            "map? Use --threshold"
        )
    return values


def pair_reader(image: Path, mask: Path, threshold: int = 0) -> partial[Pair]:
    """Return the function `Case.read` for an image file and a vessel mask file; see `binary_mask` for the threshold."""
    return partial(_read_pair, image, mask, threshold)


def _read_pair(image: Path, mask: Path, threshold: int) -> Pair:
    values, vessels = read_image(image), binary_mask(read_mask(mask), mask, threshold)
    check_size(vessels, mask, values.shape, image)
    return values, vessels


def binary_mask(values: np.ndarray, path: Path, threshold: int = 0) -> np.ndarray:
    """Return `values > threshold`, (H, W) bool.

    With the default threshold the mask must hold 0 and one other value, as 1-bit files, palette indices and 0/255 do.
    Grey edges are refused, because they would all become vessel.

    Raises: UserError for a mask of other values, or without a vessel.
    """
    found = np.unique(values)
    shown = ", ".join(str(value) for value in found[:8])
    if threshold == 0 and (len(found) > 2 or found[0] != 0):
        raise UserError(f"{path}: expected a mask of 0 and one other value, found {shown}")
    if found[-1] <= threshold:
        raise UserError(f"{path}: no pixel above {threshold}, so no vessel; the mask holds {shown}")
    return values > threshold


def check_pairs(images: Mapping[Any, Path], masks: Mapping[Any, Path], kind: str) -> None:
    """Raise UserError that names the first image without a mask, or mask without an image.

    Args:
        images, masks: files by the key that pairs them.
        kind: name of the masks in the error ("label", "1st_manual").
    """
    if not images:
        raise UserError(f"no images for the {kind} files; is it the official archive?")
    for key in sorted(images.keys() | masks.keys()):
        if key not in masks:
            raise UserError(f"{images[key]}: no {kind} file belongs to it; the set is incomplete")
        if key not in images:
            raise UserError(f"{masks[key]}: no image belongs to it; the set is incomplete")
