"""Sliding windows over an image far larger than the model's, and their blending."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Window:
    """Rows top..bottom and columns left..right (ends excluded) of an image."""

    top: int
    bottom: int
    left: int
    right: int


def starts(length: int, size: int, overlap: float) -> list[int]:
    """Where windows of `size` begin along `length` pixels: evenly spread from 0, the last ending at the end.

    Args:
        overlap: the least share of a window that it has in common with the next one, in [0, 1).
    """
    if length <= size:
        return [0]
    stride = max(1, int(size * (1 - overlap)))
    steps = math.ceil((length - size) / stride)
    return [round(step * (length - size) / steps) for step in range(steps + 1)]


def windows(size: tuple[int, int], side: int, overlap: float) -> list[Window]:
    """The windows of `side` pixels that cover an image of `size` (H, W), cut where the image is smaller."""
    height, width = size
    return [
        Window(top, min(top + side, height), left, min(left + side, width))
        for top in starts(height, side, overlap)
        for left in starts(width, side, overlap)
    ]


def blend(size: tuple[int, int], tiles: Iterator[tuple[Window, Tensor]], spread: Sequence[Window]) -> Tensor:
    """The weighted mean of overlapping tiles: (L, h, w) each -> (L, H, W).

    A tile's weight falls linearly from its middle to its borders, along rows and along columns.

    Args:
        size: (H, W).
        tiles: every window of `spread` with its values.
        spread: all windows, a full grid of rows and columns.
    """
    total: Tensor | None = None
    for window, values in tiles:
        if total is None:
            total = values.new_zeros(values.shape[0], *size)
        weight = _tent(window.bottom - window.top)[:, None] * _tent(window.right - window.left)
        total[:, window.top : window.bottom, window.left : window.right] += values * weight
    assert total is not None
    # The windows are a grid and a weight is a product, so the sum of the weights is one too.
    total /= _coverage({(w.top, w.bottom) for w in spread}, size[0])[:, None]
    total /= _coverage({(w.left, w.right) for w in spread}, size[1])
    return total


def _tent(length: int) -> Tensor:
    """(length,) weights: 1 in the middle, 1 / length at both ends."""
    centres = torch.arange(length) + 0.5
    return torch.minimum(centres, length - centres) * (2 / length)


def _coverage(spans: set[tuple[int, int]], length: int) -> Tensor:
    total = torch.zeros(length)
    for first, last in spans:
        total[first:last] += _tent(last - first)
    return total
