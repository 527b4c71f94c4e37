"""A cache of decoded and resized images in memory: lossless, compact, and within a limit of bytes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

_WHITE = 65535  # images in 0..1 are kept as 16-bit integers: exact for 8-bit files at their own size
_EIGHT_BIT_STEP = _WHITE // 255

Pair = tuple[np.ndarray, np.ndarray]  # image (1 or 3, h, w) uint8 or uint16, mask (h, w) uint8


def compact(image: np.ndarray) -> np.ndarray:
    """Convert an image (3, h, w) of floats in 0..1 to integers whose dtype's maximum means 1.

    uint8 where that loses none of the 16-bit levels, else uint16; one channel where all three are equal.
    """
    levels = np.rint(image * _WHITE).astype(np.uint16)
    if (levels[1:] == levels[0]).all():
        levels = levels[:1]
    small = levels // _EIGHT_BIT_STEP
    return small.astype(np.uint8) if (small * _EIGHT_BIT_STEP == levels).all() else levels.copy()


class ImageCache:
    """Images with their masks by path. All arrays together take at most `limit` bytes.

    Pickling leaves the arrays out: forked workers share them, and each spawned worker would get a copy of its own.
    """

    BYTES_A_PIXEL = 7  # at most: three channels of two bytes each, and one byte of the mask

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0
        self._pairs: dict[Path, Pair] = {}

    def __len__(self) -> int:
        return len(self._pairs)

    def __getstate__(self) -> dict[str, int]:
        return {"limit": self.limit}

    def __setstate__(self, state: dict[str, int]) -> None:
        self.limit, self.used = state["limit"], 0
        self._pairs = {}

    def get(self, path: Path) -> Pair | None:
        """Return the image and mask of a path, read-only; None if they are not in the cache."""
        return self._pairs.get(path)

    def fitting(self, pixels: Sequence[int]) -> int:
        """Return how many images, from the first on, surely fit; `pixels` is the number of pixels of each."""
        return int(np.searchsorted(np.cumsum(pixels) * self.BYTES_A_PIXEL, self.limit - self.used, side="right"))

    def put(self, path: Path, pair: Pair) -> None:
        """Add an image and its mask, and make them read-only. Raises: ValueError if they do not fit."""
        size = sum(array.nbytes for array in pair)
        if self.used + size > self.limit:
            raise ValueError(f"{size} bytes are more than the {self.limit - self.used} left")
        for array in pair:
            array.flags.writeable = False
        self._pairs[path] = pair
        self.used += size
