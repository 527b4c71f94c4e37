"""A contact sheet: images of every split with outlines of their masks, to see whether image and mask match."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from datasets.checks.examine import Files
from datasets.io import read_image
from datasets.masks import read_labels
from datasets.split import SPLITS
from utils.drawing import draw_caption, draw_masks, label_colour
from utils.errors import UserError
from utils.files import atomic_path

TILES = 12
COLUMNS = 4
TILE = 360  # the longer side of a picture, in pixels
MARGIN = 16
CAPTION_HEIGHT = 26
HEADER_HEIGHT = 52

GROUND, TEXT, FAINT = (24, 26, 30), (235, 235, 235), (150, 155, 165)

# Drawn twice as large and then reduced, so that outlines are smooth.
_FACTOR = 2


def save_contact_sheet(path: Path, data: Any, files: Sequence[Files], splits: Mapping[str, str]) -> int:
    """Write the sheet as a PNG: up to `TILES` images, evenly from each split, with the outlines of their masks.

    The contrast of 16-bit and dark images is stretched. Unreadable files are left out; `check` names them.

    Args:
        data: a config's `data` section.
        files, splits: as in `CheckReport`.

    Returns: the number of images on the sheet; with none, nothing is written.
    """
    tiles = []
    for one in _choose(files, splits):
        try:
            image = read_image(one.image)
            assert one.mask is not None  # by _choose
            positions = read_labels(one.mask, list(data.label_list), one.image, image.shape[:2])
        except UserError:
            continue
        tiles.append((_outlined(image, positions), one.name, splits[one.name]))
    if tiles:
        sheet = _sheet(tiles, str(getattr(data, "name", None) or Path(data.root_path).name), data.label_names, splits)
        with atomic_path(path) as temporary:
            sheet.save(temporary, format="PNG")
    return len(tiles)


def _choose(files: Sequence[Files], splits: Mapping[str, str]) -> list[Files]:
    """Return up to TILES files with masks, in proportion from every split, evenly spread over the split file."""
    usable = [one for one in files if one.mask is not None]
    if len(usable) <= TILES:
        return sorted(usable, key=lambda one: SPLITS.index(splits[one.name]) if splits[one.name] in SPLITS else 9)
    parts = [part for split in SPLITS if (part := [one for one in usable if splits[one.name] == split])]
    shares = [max(1, round(TILES * len(part) / len(usable))) for part in parts]
    while sum(shares) > TILES:  # rounding gave too many
        shares[shares.index(max(shares))] -= 1
    spread = (np.linspace(0, len(part) - 1, n).round().astype(int) for part, n in zip(parts, shares, strict=True))
    return [part[i] for part, places in zip(parts, spread, strict=True) for i in places]


def _outlined(image: np.ndarray, positions: np.ndarray) -> Image.Image:
    """The image, reduced, with a line around every label's area; the area itself stays as it is."""
    scale = TILE * _FACTOR / max(image.shape[:2])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    picture = np.asarray(Image.fromarray(_visible(image)).resize((width, height), Image.Resampling.LANCZOS))
    masks = np.zeros((int(positions.max()), height, width), bool)
    for index, mask in enumerate(masks):
        area = Image.fromarray(((positions == index + 1) * 255).astype(np.uint8))
        # A little below half, for vessels thinner than a pixel of the sheet.
        mask[:] = np.asarray(area.resize((width, height), Image.Resampling.BOX)) > 100
    outlined = Image.fromarray(draw_masks(picture, masks, opacity=0, line_width=_FACTOR))
    return outlined.resize((max(1, width // _FACTOR), max(1, height // _FACTOR)), Image.Resampling.BOX)


def _visible(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8; the range of the file's values is stretched where it is of 16 bits or very narrow."""
    low, high = (float(value) for value in np.percentile(image, (0.5, 99.5)))
    if image.dtype == np.uint8 and high - low > 64:
        return image
    return np.rint(np.clip((image - low) / max(high - low, 1), 0, 1) * 255).astype(np.uint8)


def _sheet(
    tiles: Sequence[tuple[Image.Image, str, str]], title: str, label_names: Sequence[str], splits: Mapping[str, str]
) -> Image.Image:
    columns = min(COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    heights = [max(tile.height for tile, *_ in tiles[r * columns : (r + 1) * columns]) for r in range(rows)]
    width = MARGIN + columns * (TILE + MARGIN)
    canvas = Image.new("RGB", (width, HEADER_HEIGHT + sum(heights) + rows * (CAPTION_HEIGHT + MARGIN)), GROUND)
    draw = ImageDraw.Draw(canvas)
    _draw_header(draw, f"{title}: {len(tiles)} of {len(splits)} images", label_names, width)
    top = HEADER_HEIGHT
    for row, height in enumerate(heights):
        for column, (tile, name, split) in enumerate(tiles[row * columns : (row + 1) * columns]):
            left = MARGIN + column * (TILE + MARGIN)
            canvas.paste(tile, (left + (TILE - tile.width) // 2, top + (height - tile.height) // 2))
            draw_caption(draw, left, top + height + CAPTION_HEIGHT // 2, TILE, [(split, FAINT), (name, TEXT)], 15)
        top += height + CAPTION_HEIGHT + MARGIN
    return canvas


def _draw_header(draw: ImageDraw.ImageDraw, title: str, label_names: Sequence[str], width: int) -> None:
    labels = [(name, label_colour(index)) for index, name in enumerate(label_names[1:])]
    draw_caption(draw, MARGIN, HEADER_HEIGHT // 2, width - 2 * MARGIN, [(title, TEXT), *labels], 20)
