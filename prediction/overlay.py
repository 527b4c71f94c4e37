"""A mask drawn over its image."""

import numpy as np
from scipy.ndimage import binary_dilation

# RGB of the labels, in order and again from the start. Cyan first: neither a retina nor an angiogram has it.
COLOURS = ((40, 225, 235), (255, 90, 200), (250, 220, 50), (90, 130, 255), (120, 230, 90), (255, 150, 50))
_OPACITY = 0.45


def mask_overlay(image: np.ndarray, masks: np.ndarray, opacity: float = _OPACITY) -> np.ndarray:
    """The image with each mask as a translucent area and an opaque line around it.

    Args:
        image: (H, W, 3) uint8 RGB.
        masks: (L, H, W) bool, one a label.
        opacity: of the areas, 0..1.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    drawn = image.copy()
    for index, mask in enumerate(masks):
        colour = np.array(COLOURS[index % len(COLOURS)], np.float32)
        drawn[mask] = np.rint((1 - opacity) * drawn[mask] + opacity * colour).astype(np.uint8)
        drawn[binary_dilation(mask) & ~mask] = colour
    return drawn
