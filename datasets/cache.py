"""Decoded and resized images in memory, as small as they can be without losing a bit, and never beyond a limit."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

_STEPS = 65535  # images in 0..1 are kept as 16-bit integers: exact for 8-bit files at their own size
_EIGHT_BIT_STEP = _STEPS // 255

Pair = tuple[np.ndarray, np.ndarray]  # image (1 or 3, h, w) uint8 or uint16, mask (h, w) uint8


def compact(image: np.ndarray) -> np.ndarray:
    """An image (3, h, w) of floats in 0..1 as integers of which the largest means 1.

    uint8 where these hold just the same 16-bit values, else uint16; one channel where all three are equal.
    """
    levels = np.rint(image * _STEPS).astype(np.uint16)
    if (levels[1:] == levels[0]).all():
        levels = levels[:1]
    small = levels // _EIGHT_BIT_STEP
    return small.astype(np.uint8) if (small * _EIGHT_BIT_STEP == levels).all() else levels.copy()


class ImageCache:
    """Images with their masks by path, whose arrays take no more than `limit` bytes together.

    A copy that is sent to another process starts empty: workers that are forked share the arrays, those that are
    spawned would each get their own and take a multiple of the limit.
    """

    BYTES_A_PIXEL = 7  # at most: three channels of two bytes and the mask's one

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0
        self._pairs: dict[Path, Pair] = {}

    def __len__(self) -> int:
        return len(self._pairs)

    def __getstate__(self) -> dict[str, int]:
        return {"limit": self.limit}

    def __setstate__(self, state: dict[str, int]) -> None:
        self.__init__(state["limit"])

    def get(self, path: Path) -> Pair | None:
        """The image and mask of a path, not to be written to; None if they aren't kept."""
        return self._pairs.get(path)

    def fitting(self, pixels: Sequence[int]) -> int:
        """How many images, the first of these with so many pixels each, have room whatever they turn out to be."""
        return int(np.searchsorted(np.cumsum(pixels) * self.BYTES_A_PIXEL, self.limit - self.used, side="right"))

    def put(self, path: Path, pair: Pair) -> None:
        """Keep an image. Raises: ValueError if there is no room for it."""
        size = sum(array.nbytes for array in pair)
        if self.used + size > self.limit:
            raise ValueError(f"{size} bytes are more than the {self.limit - self.used} left")
        for array in pair:
            array.flags.writeable = False
        self._pairs[path] = pair
        self.used += size
