"""Drawing on images: masks as coloured areas with outlines, and captions of several colours."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]  # RGB

# The labels' colours, in order and again from the start. Cyan first: neither a retina nor an angiogram has it.
LABEL_COLOURS: tuple[Colour, ...] = (
    (40, 225, 235),
    (255, 90, 200),
    (250, 220, 50),
    (90, 130, 255),
    (120, 230, 90),
    (255, 150, 50),
)

# Pixels.
LEGEND_HEIGHT = 26
_LEGEND_FONT = 15
_LEGEND_MARGIN = 6


def label_colour(index: int) -> Colour:
    """The colour of the index-th foreground label."""
    return LABEL_COLOURS[index % len(LABEL_COLOURS)]


def label_palette(values: Sequence[int]) -> bytes:
    """The colours of an index mask, 256 times RGB: black for the background, grey for a value without a label.

    Args:
        values: of the background and of each foreground label, below 256.
    """
    palette = [(128, 128, 128)] * 256
    for index, value in enumerate(values):
        palette[value] = label_colour(index - 1) if index else (0, 0, 0)
    return bytes(channel for colour in palette for channel in colour)


def with_legend(image: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Returns the image (H, W, 3) with the names of the labels in their colours below it, (H + LEGEND_HEIGHT, W, 3)."""
    canvas = Image.new("RGB", (image.shape[1], image.shape[0] + LEGEND_HEIGHT))
    canvas.paste(Image.fromarray(image))
    words = [(name, label_colour(index)) for index, name in enumerate(labels)]
    middle = image.shape[0] + LEGEND_HEIGHT / 2
    draw_caption(
        ImageDraw.Draw(canvas), _LEGEND_MARGIN, middle, image.shape[1] - 2 * _LEGEND_MARGIN, words, _LEGEND_FONT
    )
    return np.asarray(canvas)


def draw_masks(
    image: np.ndarray, masks: np.ndarray, opacity: float = 0.45, line_width: int = 1, first: int = 0
) -> np.ndarray:
    """Returns the image with each mask as a translucent area and an opaque line around it.

    Args:
        image: (H, W, 3) uint8 RGB.
        masks: (L, H, W) bool, one a label.
        opacity: of the areas, 0 (outlines alone) to 1.
        line_width: in pixels.
        first: which label the first mask is of; it decides the colours.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    from scipy.ndimage import binary_dilation  # takes 0.4 s to import

    drawn = image.copy()
    for index, mask in enumerate(masks, first):
        colour = np.array(label_colour(index), np.float32)
        drawn[mask] = np.rint((1 - opacity) * drawn[mask] + opacity * colour).astype(np.uint8)
        drawn[binary_dilation(mask, iterations=line_width) & ~mask] = colour
    return drawn


def draw_caption(
    draw: ImageDraw.ImageDraw,
    left: float,
    middle: float,
    width: float,
    words: Sequence[tuple[str, Colour]],
    font_size: int,
) -> None:
    """Draws texts, each in its colour, on one line; those that do not fit into `width` pixels are shortened.

    Args:
        left, middle: pixels; the line starts at x = `left`, and y = `middle` is half its height.
    """
    font = ImageFont.load_default(size=font_size)
    end = left + width
    for text, colour in words:
        text = _shorten(text, font, end - left)
        draw.text((left, middle), text, fill=colour, font=font, anchor="lm")
        left += font.getlength(text) + 0.8 * font_size


def _shorten(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    """`text`, or as much of it as fits with "..." behind it; empty where not even that fits."""
    shortened = text
    while shortened and font.getlength(shortened) > width:
        text = text[:-1]
        shortened = f"{text}..." if text else ""
    return shortened
