"""Polygons to masks."""

from collections.abc import Iterable

import numpy as np


def fill_polygons(polygons: Iterable[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Return the union of polygons as (H, W) bool.

    A pixel belongs to a polygon if its centre lies inside. Coordinates are COCO's: (0, 0) is the upper left corner of
    the first pixel, whose centre is (0.5, 0.5), so a rectangle from 2 to 5 is three pixels wide, and areas are kept on
    average. (Drawing routines that paint the outline too make every vessel about a pixel wider.) Inside is where a
    ray crosses the outline an odd number of times; a centre on the outline belongs to the polygon on its right or
    below, so that neighbours neither overlap nor leave a gap. Parts outside the image are cut off.

    Args:
        polygons: each (n, 2) as (x, y) in pixels, closed by itself; fewer than three points cover nothing.
        size: (H, W).
    """
    mask = np.zeros(size, bool)
    for points in polygons:
        if len(points) > 2:
            _add(points, mask)
    return mask


def _add(points: np.ndarray, mask: np.ndarray) -> None:
    """Add one polygon: where a row of pixel centres crosses the outline, inside and outside change places."""
    height, width = mask.shape
    (x0, y0), (x1, y1) = points.T, np.roll(points, -1, axis=0).T
    # The rows whose centre lies in [upper end, lower end) of an edge: a corner counts for one of its two edges.
    top, bottom = (
        np.clip(np.ceil(y - 0.5), 0, height).astype(np.int64) for y in (np.minimum(y0, y1), np.maximum(y0, y1))
    )
    edge = np.repeat(np.arange(len(points)), bottom - top)
    if not len(edge):
        return
    row = np.arange(len(edge)) - np.repeat(np.cumsum(bottom - top) - bottom, bottom - top)
    crossing = x0[edge] + (row + 0.5 - y0[edge]) * (x1[edge] - x0[edge]) / (y1[edge] - y0[edge])
    column = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)
    first, last = row.min(), row.max() + 1
    changes = np.zeros((last - first, width + 1), np.int64)
    np.add.at(changes, (row - first, column), 1)
    mask[first:last] |= changes[:, :-1].cumsum(axis=1) % 2 == 1
