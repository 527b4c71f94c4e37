"""Which part of a file's values becomes black to white."""

import numpy as np

from utils.errors import ConfigError

EIGHT_BIT_WHITE = 255
# An a_max of 8 bits under more than this share of a 16-bit image is a mistake and no window.
MOST = 0.5


def intensity_window(image: np.ndarray, a_min: float | None, a_max: float | None) -> tuple[float, float]:
    """[a_min, a_max], by default the whole range of the image's dtype (uint8 or uint16).

    Raises: ConfigError if a_max isn't above a_min, or is one for 8 bits where the image has 16 and is mostly above.
    """
    low = 0 if a_min is None else a_min
    high = np.iinfo(image.dtype).max if a_max is None else a_max
    if high <= low:
        raise ConfigError(f"data_transforms: a_max ({high}) must be above a_min ({low})")
    if image.dtype == np.uint16 and high <= EIGHT_BIT_WHITE:
        share = np.count_nonzero(image > high) / image.size
        if share > MOST:
            raise ConfigError(
                f"data_transforms: a_max ({high:g}) would turn {share:.0%} of this 16-bit image white; "
                "set it to what white is in these files, or leave it out"
            )
    return low, high


def scale_intensity(image: np.ndarray, a_min: float | None, a_max: float | None) -> np.ndarray:
    """Clip to the `intensity_window` and scale it to 0..1: float32. Raises: as `intensity_window` does."""
    low, high = intensity_window(image, a_min, a_max)
    scaled = image.astype(np.float32)
    np.clip(scaled, low, high, out=scaled)
    scaled -= low
    scaled /= high - low
    return scaled
