"""Drawing tools of the generated sets: smooth noise, and strokes and outlines with their coverage of each pixel."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import zoom

Rng = np.random.Generator

# Shapes are drawn this many times larger; a pixel belongs to an object that covers at least half of it.
_SUPERSAMPLING = 4


def clouds(rng: Rng, size: int, cells: int) -> np.ndarray:
    """Return smooth noise (size, size) of about unit standard deviation, with about `cells` bumps along each side."""
    coarse = rng.standard_normal((cells + 3, cells + 3))
    return zoom(coarse, (size * 1.5) / (cells + 3), order=2)[:size, :size]


def coverage(size: int, paint: Callable[[ImageDraw.ImageDraw, int], None]) -> np.ndarray:
    """Return the share of each pixel that a drawing covers: (size, size) float in 0..1.

    `paint(pen, scale)` draws in white (255) on a canvas that is `scale` times larger.
    """
    canvas = Image.new("L", (size * _SUPERSAMPLING, size * _SUPERSAMPLING))
    paint(ImageDraw.Draw(canvas), _SUPERSAMPLING)
    return np.asarray(canvas.reduce(_SUPERSAMPLING), np.float64) / 255


def stroke_coverage(size: int, points: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Return the coverage of a round-ended stroke.

    Args:
        points: (n, 2) as (x, y), in pixels.
        widths: (n,), of the stroke at each point, in pixels.
    """

    def paint(pen: ImageDraw.ImageDraw, scale: int) -> None:
        for (x0, y0), (x1, y1), width in zip(scale * points[:-1], scale * points[1:], scale * widths, strict=False):
            pen.line([(x0, y0), (x1, y1)], fill=255, width=max(1, round(width)))
        for (x, y), radius in zip(scale * points, scale * widths / 2, strict=True):
            pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=255)

    return coverage(size, paint)
