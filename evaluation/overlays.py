"""Pictures of predictions beside their truth."""

import math
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from data_transforms.data_transforms import resize_shape
from utils.drawing import draw_caption
from utils.files import atomic_path

# RGB. Red and blue are lightened a little, since pure blue is hardly seen on black.
TRUE_POSITIVE = (255, 255, 255)
FALSE_NEGATIVE = (215, 40, 40)  # dark in grey
FALSE_POSITIVE = (80, 160, 255)  # light in grey
GAP_COLOUR = (96, 96, 96)
GAP = 4  # columns between two panels
DIMMING = 0.4

CAPTION_HEIGHT = 26
CAPTION_FONT = 15
CAPTION_MARGIN = 6
# Below this width a caption has no room: the panels of smaller images are enlarged by a whole factor.
MIN_PANEL_WIDTH = 256


def overlay(image: np.ndarray, truth: np.ndarray, pred: np.ndarray) -> np.ndarray:
    """Four panels side by side: image, truth, prediction, errors.

    Truth and prediction are white on black. The errors lie on a dimmed grey image: white where both agree on vessel,
    red for missed vessel, blue for false vessel.

    Args:
        image: (H, W, 3) uint8 RGB.
        truth, pred: (H, W) bool.

    Returns:
        (H, 4 * W + 3 * GAP, 3) uint8 RGB.

    Raises:
        ValueError: a shape or dtype other than these.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected an image (H, W, 3) of uint8, got {image.shape} of {image.dtype}")
    for mask in (truth, pred):
        if mask.dtype != bool or mask.shape != image.shape[:2]:
            raise ValueError(f"expected a mask {image.shape[:2]} of bool, got {mask.shape} of {mask.dtype}")
    gap = np.full((image.shape[0], GAP, 3), GAP_COLOUR, dtype=np.uint8)
    panels = [image, gap, mask_panel(truth), gap, mask_panel(pred), gap, _errors(image, truth, pred)]
    return np.concatenate(panels, axis=1)


def small_overlay(image: np.ndarray, truth: np.ndarray, pred: np.ndarray, side: int = 160) -> np.ndarray:
    """`overlay` with panels of at most `side` pixels along their longest side.

    Args:
        image: (H, W, 3) uint8 RGB, of any size.
        truth, pred: (h, w) bool, of the image at another size perhaps.
    """
    height, width = resize_shape(truth.shape, min(side, max(truth.shape)))
    panel = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    masks = [cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_AREA) for mask in (truth, pred)]
    return overlay(panel, masks[0] > 0, masks[1] > 0)


def save_overlay(
    path: Path, image: np.ndarray, truth: np.ndarray, pred: np.ndarray, *, name: str, label: str, dice: float
) -> None:
    """Write `overlay` as a PNG with a caption over each panel: image name, label, Dice.

    Args:
        path: the PNG; its folder is made if missing. It is replaced only once the new one is whole.
        image, truth, pred: as for `overlay`. Panels narrower than `MIN_PANEL_WIDTH` are enlarged by a whole factor.
        name, label: shortened where they don't fit the panel.
        dice: of this prediction, in [0, 1].
    """
    factor = math.ceil(MIN_PANEL_WIDTH / image.shape[1])
    image, truth, pred = (a.repeat(factor, axis=0).repeat(factor, axis=1) for a in (image, truth, pred))
    panels = Image.fromarray(overlay(image, truth, pred))
    canvas = Image.new("RGB", (panels.width, panels.height + CAPTION_HEIGHT))
    canvas.paste(panels, (0, CAPTION_HEIGHT))
    captions = (
        [(name, TRUE_POSITIVE)],
        [(f"truth: {label}", TRUE_POSITIVE)],
        [("prediction", TRUE_POSITIVE)],
        [(f"Dice {dice:.3f}", TRUE_POSITIVE), ("missed", FALSE_NEGATIVE), ("false", FALSE_POSITIVE)],
    )
    draw = ImageDraw.Draw(canvas)
    for index, words in enumerate(captions):
        left = index * (image.shape[1] + GAP) + CAPTION_MARGIN
        draw_caption(draw, left, CAPTION_HEIGHT / 2, image.shape[1] - 2 * CAPTION_MARGIN, words, CAPTION_FONT)
    with atomic_path(path) as temporary:
        canvas.save(temporary, format="PNG")


def save_mask(path: Path, mask: np.ndarray) -> None:
    """Write a mask (H, W) bool as a grey PNG, 0 and 255; errors and the file's making as for `save_overlay`."""
    if mask.dtype != bool or mask.ndim != 2:
        raise ValueError(f"expected a mask (H, W) of bool, got {mask.shape} of {mask.dtype}")
    with atomic_path(path) as temporary:
        Image.fromarray(mask.astype(np.uint8) * 255).save(temporary, format="PNG")


def mask_panel(mask: np.ndarray) -> np.ndarray:
    """A mask (H, W) bool as (H, W, 3) uint8, white on black."""
    return np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * 255


def _errors(image: np.ndarray, truth: np.ndarray, pred: np.ndarray) -> np.ndarray:
    # Grey, so that red and blue are never the image's own colours.
    panel = np.repeat((image.mean(axis=2, keepdims=True) * DIMMING).astype(np.uint8), 3, axis=2)
    panel[truth & pred] = TRUE_POSITIVE
    panel[truth & ~pred] = FALSE_NEGATIVE
    panel[~truth & pred] = FALSE_POSITIVE
    return panel
