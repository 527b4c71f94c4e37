"""Finds the mask of an image, and translates its values to labels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.io import IMAGE_SUFFIXES, read_mask
from utils.errors import UserError

MaskIndex = dict[str, list[Path]]

MASK_ENDING = "_mask"
_SHOWN_VALUES = 8


def index_masks(folder: Path, kind: str = "masks") -> MaskIndex:
    """Return the image files of a folder by stem, for many look-ups in one folder."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of {kind}")
    index: MaskIndex = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            index.setdefault(path.stem, []).append(path)
    return index


def find_mask(masks_dir: str | Path, image_name: str, index: MaskIndex | None = None, kind: str = "mask") -> Path:
    """Return the mask of an image: the file of the same stem, or of the stem followed by `_mask`.

    Args:
        masks_dir: folder of masks, with the same subfolders as images/.
        image_name: the image's path in the split file.
        index: `index_masks` of the mask's folder, if many masks are looked up.
        kind: the word for these files in an error: "mask", or "field-of-view file" for fov/.

    Raises: UserError that names the file, if there is no such mask or more than one.
    """
    name = Path(image_name)
    folder = Path(masks_dir) / name.parent
    index = index_masks(folder) if index is None else index
    found = index.get(name.stem, []) + index.get(name.stem + MASK_ENDING, [])
    if not found:
        raise UserError(f"{image_name}: no {kind} {name.stem}.* or {name.stem}{MASK_ENDING}.* in {folder}; add it")
    if len(found) > 1:
        raise UserError(f"{image_name}: several {kind}s in {folder}: {', '.join(p.name for p in found)}; keep one")
    return found[0]


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
    if values.shape != tuple(size):
        ours, theirs = (f"{shape[1]} x {shape[0]}" for shape in (values.shape, size))
        raise UserError(f"{path}: mask of {ours} pixels, but image {image_path.name} is {theirs} (width x height)")
    return label_positions(values, label_list, path)
