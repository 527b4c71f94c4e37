"""The intensity window: the range of a file's values that becomes 0 to 1."""

import numpy as np

from utils.errors import ConfigError

EIGHT_BIT_WHITE = 255
# An 8-bit a_max that more than this share of a 16-bit image exceeds is a mistake, not a window.
MAX_SHARE_ABOVE = 0.5


def intensity_window(image: np.ndarray, a_min: float | None, a_max: float | None) -> tuple[float, float]:
    """[a_min, a_max], by default the whole range of the image's dtype (uint8 or uint16).

    Raises: ConfigError if a_max is not above a_min.
    """
    low = 0 if a_min is None else a_min
    high = np.iinfo(image.dtype).max if a_max is None else a_max
    if high <= low:
        raise ConfigError(f"data_transforms: a_max ({high}) must be above a_min ({low})")
    return low, high


def check_window(image: np.ndarray, a_min: float | None, a_max: float | None) -> None:
    """Raises ConfigError, as `intensity_window`, or if a_max is one of 8 bits and a 16-bit image mostly exceeds it.

    Args:
        image: a whole one; a part of it may well be white.
    """
    _, high = intensity_window(image, a_min, a_max)
    if image.dtype == np.uint16 and high <= EIGHT_BIT_WHITE:
        share = np.count_nonzero(image > high) / image.size
        if share > MAX_SHARE_ABOVE:
            raise ConfigError(
                f"data_transforms: a_max ({high:g}) would turn {share:.0%} of this 16-bit image white; "
                "set it to the value of white in these files, or leave it out"
            )


def scale_intensity(image: np.ndarray, a_min: float | None, a_max: float | None) -> np.ndarray:
    """Clip to the `intensity_window` and scale to 0..1, float32. Raises: as `intensity_window` does."""
    low, high = intensity_window(image, a_min, a_max)
    scaled = image.astype(np.float32)
    np.clip(scaled, low, high, out=scaled)
    scaled -= low
    scaled /= high - low
    return scaled
