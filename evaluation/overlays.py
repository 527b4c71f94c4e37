"""Pictures of a run: predictions beside their truth, and the training curves."""

import math
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from training.run_log import read_metrics, scalars
from utils.errors import UserError
from utils.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# RGB. Red and blue are lightened a little, since pure blue is hardly seen on black.
HIT = (255, 255, 255)
MISSED = (255, 60, 50)
FALSE = (70, 140, 255)
GAP_COLOUR = (96, 96, 96)
GAP = 4  # columns between two panels
DIMMING = 0.4

CAPTION_HEIGHT = 26
CAPTION_FONT = 15
CAPTION_MARGIN = 6
# Below this width a caption has no room: the panels of smaller images are enlarged by a whole factor.
MIN_PANEL_WIDTH = 256

# Panels of the curves: title, and the word that a record's key must hold to be drawn there.
CURVE_PANELS = (("loss", "loss"), ("Dice", "dice"), ("learning rate", "lr"))


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
    panels = [image, gap, _white(truth), gap, _white(pred), gap, _errors(image, truth, pred)]
    return np.concatenate(panels, axis=1)


def overlay_name(image: str, label: str) -> str:
    """The overlay's path for an image of the given path below images/: in the same subfolders, `<stem>_<label>.png`."""
    path = PurePosixPath(image)
    folders = [part for part in path.parent.parts if part not in ("/", "..")]  # never outside the folder of overlays
    return PurePosixPath(*folders, f"{path.stem}_{label.replace('/', '_')}.png").as_posix()


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
        [(name, HIT)],
        [(f"truth: {label}", HIT)],
        [("prediction", HIT)],
        [(f"Dice {dice:.3f}", HIT), ("missed", MISSED), ("false", FALSE)],
    )
    draw = ImageDraw.Draw(canvas)
    for index, words in enumerate(captions):
        _caption(draw, index * (image.shape[1] + GAP), image.shape[1], words)
    with atomic_path(path) as temporary:
        canvas.save(temporary, format="PNG")


def save_mask(path: Path, mask: np.ndarray) -> None:
    """Write a mask (H, W) bool as a grey PNG, 0 and 255; errors and the file's making as for `save_overlay`."""
    if mask.dtype != bool or mask.ndim != 2:
        raise ValueError(f"expected a mask (H, W) of bool, got {mask.shape} of {mask.dtype}")
    with atomic_path(path) as temporary:
        Image.fromarray(mask.astype(np.uint8) * 255).save(temporary, format="PNG")


def plot_curves(metrics_jsonl: Path, out: Path) -> None:
    """Draw losses, Dice and learning rate per epoch from a run's metrics.jsonl to a PNG.

    A number is drawn in the panel whose word is one of the words of its key ("loss/focal", "val/dice", "lr", also
    "val_dice"); "loss" goes before "dice". Numbers of other names are left out, and so are panels without a number.

    Args:
        metrics_jsonl: as `RunLog` writes it; a half-written last line is left out.
        out: the PNG; its folder is made if missing. It is replaced only once the new one is whole.

    Raises:
        UserError: the file is missing or damaged, or holds nothing to draw.
    """
    panels = _curves(read_metrics(metrics_jsonl))
    if not panels:
        raise UserError(f"{metrics_jsonl}: holds no loss, Dice or learning rate to draw; train for an epoch first")
    # Figure with its own Agg canvas, not pyplot: no display, no global state, no figure left open.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8 * len(panels), 3.6), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, curves) in zip(axes, panels.items(), strict=True):
        _draw_panel(axis, title, curves)
    with atomic_path(out) as temporary:
        canvas.print_png(str(temporary))


def _white(mask: np.ndarray) -> np.ndarray:
    return np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * 255


def _errors(image: np.ndarray, truth: np.ndarray, pred: np.ndarray) -> np.ndarray:
    # Grey, so that red and blue are never the image's own colours.
    panel = np.repeat((image.mean(axis=2, keepdims=True) * DIMMING).astype(np.uint8), 3, axis=2)
    panel[truth & pred] = HIT
    panel[truth & ~pred] = MISSED
    panel[~truth & pred] = FALSE
    return panel


def _caption(draw: ImageDraw.ImageDraw, left: int, width: int, words: list[tuple[str, tuple[int, int, int]]]) -> None:
    font = ImageFont.load_default(size=CAPTION_FONT)
    x, end = left + CAPTION_MARGIN, left + width - CAPTION_MARGIN
    for text, colour in words:
        text = _shorten(text, font, end - x)
        draw.text((x, CAPTION_HEIGHT / 2), text, fill=colour, font=font, anchor="lm")
        x += int(font.getlength(text)) + 2 * CAPTION_MARGIN


def _shorten(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    if font.getlength(text) <= width:
        return text
    kept = len(text)
    while kept > 0 and font.getlength(text[:kept] + "...") > width:
        kept -= 1
    return text[:kept] + "..."


def _curves(records: list[dict]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    panels: dict[str, dict[str, list[tuple[int, float]]]] = {title: defaultdict(list) for title, _ in CURVE_PANELS}
    for record in records:
        for name, value in scalars(record):
            words = name.lower().replace("_", "/").split("/")
            title = next((title for title, word in CURVE_PANELS if word in words), None)
            if title is not None and "std" not in words:
                panels[title][name].append((record["epoch"], value))
    return {title: curves for title, curves in panels.items() if curves}


def _draw_panel(axis: "Axes", title: str, curves: dict[str, list[tuple[int, float]]]) -> None:
    from matplotlib.ticker import MaxNLocator

    for name, points in curves.items():
        epochs, values = zip(*points, strict=True)
        # A lone epoch has no line to draw, so it needs its marker.
        axis.plot(epochs, values, label=name, linewidth=1.6, marker="o" if len(points) < 20 else None, markersize=3.5)
    if title == "Dice":
        axis.set_ylim(0.0, 1.0)
    elif title == "loss":
        _scale_losses(axis, [value for points in curves.values() for _, value in points])
    else:
        axis.ticklabel_format(axis="y", style="scientific", scilimits=(-2, 2))
    axis.set(title=title, xlabel="epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    if len(curves) > 1 or title != "learning rate":
        axis.legend(fontsize="small", framealpha=0.85, edgecolor="none")


def _scale_losses(axis: "Axes", values: list[float]) -> None:
    """Logarithmic where the parts differ a lot: focal is some hundred times smaller than Dice."""
    positive = [value for value in values if value > 0.0]
    if min(values) < 0.0 or not positive or max(positive) < 20.0 * min(positive):
        return
    axis.set_yscale("log")
    # A regularizer that starts at almost nothing would else squeeze all the rest to a line.
    axis.set_ylim(bottom=max(min(positive) / 1.5, max(positive) * 1e-4))
