"""What the generated sets draw with: smooth noise, strokes, and outlines with exact pixel coverage."""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import zoom

Rng = np.random.Generator

# Outlines are drawn this much larger; a pixel belongs to an object that covers at least half of it.
_SUPERSAMPLING = 4


def clouds(rng: Rng, size: int, cells: int) -> np.ndarray:
    """Smooth noise (size, size) of about unit spread, with about `cells` bumps a side."""
    coarse = rng.standard_normal((cells + 3, cells + 3))
    return zoom(coarse, (size * 1.5) / (cells + 3), order=2)[:size, :size]


def coverage(size: int, paint: Callable[[ImageDraw.ImageDraw, int], None]) -> np.ndarray:
    """How much of each pixel a drawing covers: (size, size) float in 0..1.

    `paint` is called with a pen and the scale of its canvas, and draws in white (255).
    """
    canvas = Image.new("L", (size * _SUPERSAMPLING, size * _SUPERSAMPLING))
    paint(ImageDraw.Draw(canvas), _SUPERSAMPLING)
    return np.asarray(canvas.reduce(_SUPERSAMPLING), np.float64) / 255


def draw_stroke(pen: ImageDraw.ImageDraw, points: np.ndarray, widths: Sequence[float] | np.ndarray) -> None:
    """A round-ended stroke through points (n, 2) (x, y) with a width at each, all in pixels of the canvas."""
    for start, end, width in zip(points[:-1], points[1:], widths, strict=False):
        pen.line([tuple(start), tuple(end)], fill=255, width=max(1, round(width)))
    for (x, y), width in zip(points, widths, strict=True):
        pen.ellipse([x - width / 2, y - width / 2, x + width / 2, y + width / 2], fill=255)
