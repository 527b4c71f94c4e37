"""Sliding windows over an image larger than the model's, and their blending."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from utils.errors import ConfigError

TILE_OVERLAP = 0.25
_TILE_BATCH = 4


def check_overlap(overlap: float | None, windows: bool) -> None:
    """Raises ConfigError where an `overlap` of windows is given, and there are no `windows`."""
    if overlap not in (None, TILE_OVERLAP) and not windows:
        raise ConfigError("--tile_overlap: is for --tile, and for models of data_transforms.scale: native")


@dataclass(frozen=True)
class Window:
    """Rows top..bottom and columns left..right (ends excluded) of an image."""

    top: int
    bottom: int
    left: int
    right: int


def window_starts(length: int, size: int, overlap: float) -> list[int]:
    """The first pixels of windows of `size` along `length` pixels: evenly spaced, from the first pixel to the last.

    Args:
        overlap: the smallest share of a window that overlaps the next, in [0, 1).
    """
    if length <= size:
        return [0]
    stride = max(1, int(size * (1 - overlap)))
    steps = math.ceil((length - size) / stride)
    return [round(step * (length - size) / steps) for step in range(steps + 1)]


def windows(size: tuple[int, int], side: int, overlap: float) -> list[Window]:
    """The windows of `side` pixels that cover an image of `size` (H, W); smaller along a side where the image is."""
    height, width = size
    return [
        Window(top, min(top + side, height), left, min(left + side, width))
        for top in window_starts(height, side, overlap)
        for left in window_starts(width, side, overlap)
    ]


def slide(
    size: tuple[int, int],
    side: int,
    pixels: Callable[[Window], Tensor],
    predict: Callable[[Tensor, Sequence[Window]], Tensor],
    overlap: float = TILE_OVERLAP,
) -> Tensor:
    """The blended logits (L, H, W) of windows that slide over an image.

    Args:
        size: (H, W) of the image.
        side: S, the side of the windows.
        pixels: a window's (3, S, S) input, padded right and below where the image ends.
        predict: (B, 3, S, S) inputs and their windows -> (B, L, S, S) logits.
        overlap: the smallest share of a window that overlaps the next.
    """
    grid = windows(size, side, overlap)

    def predicted() -> Iterator[tuple[Window, Tensor]]:
        for first in range(0, len(grid), _TILE_BATCH):
            group = grid[first : first + _TILE_BATCH]
            for window, logits in zip(group, predict(torch.stack([pixels(w) for w in group]), group), strict=True):
                yield window, logits[:, : window.bottom - window.top, : window.right - window.left]

    return blend(size, predicted(), grid)


def blend(size: tuple[int, int], tiles: Iterator[tuple[Window, Tensor]], grid: Sequence[Window]) -> Tensor:
    """The weighted mean of overlapping tiles: (L, h, w) each -> (L, H, W).

    A tile's weight falls linearly from its middle to its borders, along both axes.

    Args:
        size: (H, W).
        tiles: every window of `grid` with its values.
        grid: all windows, a full grid of rows and columns.
    """
    total: Tensor | None = None
    for window, values in tiles:
        if total is None:
            total = values.new_zeros(values.shape[0], *size)
        weight = _triangle(window.bottom - window.top)[:, None] * _triangle(window.right - window.left)
        total[:, window.top : window.bottom, window.left : window.right] += values * weight
    assert total is not None
    # Windows form a grid and weights are products of both axes, so the sum of weights is a product as well.
    total /= _coverage({(w.top, w.bottom) for w in grid}, size[0])[:, None]
    total /= _coverage({(w.left, w.right) for w in grid}, size[1])
    return total


def _triangle(length: int) -> Tensor:
    """(length,) weights: 1 in the middle, 1 / length at both ends."""
    centres = torch.arange(length) + 0.5
    return torch.minimum(centres, length - centres) * (2 / length)


def _coverage(spans: set[tuple[int, int]], length: int) -> Tensor:
    total = torch.zeros(length)
    for first, last in spans:
        total[first:last] += _triangle(last - first)
    return total
