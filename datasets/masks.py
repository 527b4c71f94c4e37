"""Finds the mask of an image, and translates its values to labels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.io import IMAGE_SUFFIXES, read_mask
from utils.errors import UserError

MASK_ENDING = "_mask"
FIELD_OF_VIEW = "field-of-view file"  # the kind of the files in fov/
_SHOWN_VALUES = 8


class MaskFinder:
    """Finds the files of images in a folder of masks, which has the same subfolders as images/.

    `kind` is the word for these files in errors: "mask", or FIELD_OF_VIEW.
    """

    def __init__(self, folder: Path, kind: str = "mask") -> None:
        self.folder, self.kind = folder, kind
        self._by_stem: dict[Path, dict[str, list[Path]]] = {}  # of each subfolder that was looked into

    def find(self, image_name: str) -> Path:
        """The file of the same stem as the image (its path in the split file), or of the stem followed by `_mask`.

        Raises: UserError that names the file, if there is no such mask or more than one.
        """
        name = Path(image_name)
        folder = self.folder / name.parent
        if folder not in self._by_stem:
            self._by_stem[folder] = self._images_of(folder)
        found = [path for stem in (name.stem, name.stem + MASK_ENDING) for path in self._by_stem[folder].get(stem, ())]
        if not found:
            raise UserError(
                f"{image_name}: no {self.kind} {name.stem}.* or {name.stem}{MASK_ENDING}.* in {folder}; add it"
            )
        if len(found) > 1:
            shown = ", ".join(path.name for path in found)
            raise UserError(f"{image_name}: several {self.kind}s in {folder}: {shown}; keep one")
        return found[0]

    def _images_of(self, folder: Path) -> dict[str, list[Path]]:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder of {self.kind}s")
        by_stem: dict[str, list[Path]] = {}
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                by_stem.setdefault(path.stem, []).append(path)
        return by_stem


def label_positions(values: np.ndarray, label_list: Sequence[int], path: Path) -> np.ndarray:
    """Translate stored values to positions in `label_list`.

    Args:
        values: (H, W) integers as stored.
        label_list: the values of all labels, background first.
        path: the file, for the error.

    Returns: (H, W) uint8; 0 is background.
    Raises: UserError with file and values, unless all are in `label_list`, or 0 and 255 where there are two labels.
    """
    found = np.unique(values)
    if np.isin(found, label_list).all():
        positions = np.zeros(values.shape, np.uint8)
        for position, label in enumerate(label_list):
            positions[values == label] = position
        return positions
    if len(label_list) == 2 and np.isin(found, (0, 255)).all():
        return (values == 255).astype(np.uint8)
    shown = ", ".join(str(value) for value in found[:_SHOWN_VALUES]) + (", ..." if len(found) > _SHOWN_VALUES else "")
    allowed = ", ".join(str(label) for label in label_list) + (" (or 0 and 255)" if len(label_list) == 2 else "")
    raise UserError(f"{path}: the mask holds values {shown}; label_list allows {allowed}")


def read_labels(path: Path, label_list: Sequence[int], image_path: Path, size: tuple[int, int]) -> np.ndarray:
    """Read a mask as (H, W) uint8 positions in `label_list`.

    Raises: UserError as `read_mask` and `label_positions` do, and if the mask is not of the image's `size` (H, W).
    """
    return positions_for(read_mask(path), label_list, path, image_path, size)


def read_field_of_view(path: Path, image_path: Path, size: tuple[int, int]) -> np.ndarray:
    """Read a field of view as (H, W) bool; the file holds 0 and 1, or 0 and 255.

    Raises: UserError that names the file: as `read_labels` does, or if it has no pixel inside.
    """
    inside = read_labels(path, (0, 1), image_path, size) > 0
    if not inside.any():
        raise UserError(f"{path}: no pixel is inside the field of view; correct the file")
    return inside


def positions_for(
    values: np.ndarray, label_list: Sequence[int], path: Path, image_path: Path, size: tuple[int, int]
) -> np.ndarray:
    """Do what `read_labels` does, from values already read."""
    check_size(values, path, size, image_path)
    return label_positions(values, label_list, path)


def check_size(mask: np.ndarray, path: Path, size: Sequence[int], image_path: Path) -> None:
    """Raises UserError that names both files unless a mask has an image's size (H, W, ...)."""
    if mask.shape[:2] != tuple(size[:2]):
        ours, theirs = size_text(mask.shape), size_text(size)
        raise UserError(f"{path}: mask of {ours} pixels, but image {image_path.name} is {theirs} (width x height)")


def size_text(size: Sequence[int]) -> str:
    """The width and height of an array's shape (H, W, ...), as messages say them: "565 x 584"."""
    return f"{size[1]} x {size[0]}"
