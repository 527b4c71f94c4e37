"""Areas drawn in COCO files, as polygons or run-length codes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_masks

from utils.errors import UserError

_FARTHEST = 1e5  # pixels; pycocotools crashes on coordinates near the largest integer

Polygon = list[float]  # x and y of each corner in turn


def fill(segmentation: Any, size: tuple[int, int], path: Path, number: Any) -> np.ndarray:
    """Return the area of an annotation's segmentation, (H, W) bool, as COCO's own tools fill it.

    Args:
        segmentation: polygons, or a run-length code {"size": [H, W], "counts": ...}.
        path, number: the file and the annotation's id, for errors.

    Raises: UserError for any other segmentation.
    """
    if isinstance(segmentation, dict):
        if list(segmentation.get("size", ())) != list(size):
            raise UserError(f"{path}: the run-length code of annotation {number} is of another size than its image")
        try:
            plain = isinstance(segmentation["counts"], list)
            return coco_masks.decode(coco_masks.frPyObjects(segmentation, *size) if plain else segmentation) > 0
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: annotation {number} has no valid run-length code ({error!r})") from error
    return fill_polygons(list(polygons_of(segmentation, path, number)), size)


def fill_polygons(polygons: list[Polygon], size: tuple[int, int]) -> np.ndarray:
    """Return the union of polygons, (H, W) bool; without any, all False."""
    if not polygons:
        return np.zeros(size, bool)
    return coco_masks.decode(coco_masks.merge(coco_masks.frPyObjects(polygons, *size))) > 0


def polygons_of(segmentation: Any, path: Path, number: Any) -> Iterator[Polygon]:
    """Yield the polygons of three corners or more; others have no area, and pycocotools reads two corners as a box.

    Raises: UserError that names file and annotation, for anything but lists of x, y pairs.
    """
    if not isinstance(segmentation, list):
        raise UserError(f"{path}: the segmentation of annotation {number} is not a list of polygons")
    for flat in segmentation:
        try:
            points = np.array(flat, dtype=np.float64)
        except (TypeError, ValueError):
            points = np.empty((0, 0))
        if points.ndim != 1 or len(points) % 2 or not (np.abs(points) <= _FARTHEST).all():
            raise UserError(f"{path}: a polygon of annotation {number} is not a list of x, y pairs in pixels")
        if len(points) >= 6:
            yield points.tolist()
