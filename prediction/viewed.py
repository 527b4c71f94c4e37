"""What the page of `view` shows: an image, its masks, and the clicks on it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from evaluation.metrics import PAPER_METRICS, dice, score_pair
from evaluation.names import metric_of
from evaluation.threshold import Threshold
from prediction.interaction import Interaction, Prompt
from prediction.predictor import Predictor
from prediction.sources import Source
from utils.config.evaluation import EvaluationConfig
from utils.drawing import draw_masks

_LONGEST_SHOWN = 1600  # pixels; a browser gains nothing from more
_CLICK_COLOURS = {True: (60, 220, 60), False: (240, 50, 50)}

Click = tuple[float, float, bool]  # x and y as shares of the image's sides, positive


@dataclass(frozen=True)
class Viewed:
    """An image and its logits, kept while the threshold moves.

    image: (H, W, 3) uint8. logits: (H, W) float32, one a checkpoint. label: its place among the labels, which
    decides its colour. images: what each checkpoint reads of the file, for clicks.
    """

    image: np.ndarray
    logits: list[Tensor]
    note: str
    label: int = 0
    images: Sequence[np.ndarray] = ()
    interactions: Sequence[Interaction] = ()
    clicks: Sequence[Click] = ()


def view_file(path: Path, predictors: Sequence[Predictor], label: str, flips: bool | None, tile: bool) -> Viewed:
    """Reads and predicts one file, of a DICOM file the first frame. Raises: UserError that names it.

    A model that is prompted by boxes or clicks has no mask before the first click.
    """
    source = Source(path, Path(path.stem))
    frames = len(source.stems())
    images = [next(source.images(predictor.transform)) for predictor in predictors]  # each has its own window
    found = [
        predictor.array_logits(image, [label], tile=tile, flips=flips)[0]
        if predictor.model.prompt not in ("box", "points")
        else torch.full(image.shape[:2], -torch.inf)
        for predictor, image in zip(predictors, images, strict=True)
    ]
    shown = predictors[0].shown(images[0])
    height, width = shown.shape[:2]
    size = f"{width} x {height} pixels" + (f", frame 1 of {frames}" if frames > 1 else "")
    return Viewed(shown, found, f"**{path.name}**, {size}", predictors[0].labels.index(label), images)


def clicked(viewed: Viewed, clicks: Sequence[Click], predictors: Sequence[Predictor]) -> Viewed:
    """The same image after at least one click, which takes the place of the models' own prompts.

    Raises: UserError for a model that takes no clicks.
    """
    interactions = viewed.interactions or [
        predictor.interaction(image) for predictor, image in zip(predictors, viewed.images, strict=True)
    ]
    found = []
    for each in interactions:
        height, width = each.size
        prompt = Prompt([(min(x * width, width - 1), min(y * height, height - 1), sign) for x, y, sign in clicks])
        found.append(each.logits(prompt))
    return replace(viewed, logits=found, interactions=interactions, clicks=tuple(clicks))


def pictures(
    viewed: Viewed | None, threshold: Threshold, checkpoints: int, settings: EvaluationConfig | None = None
) -> list:
    """Note (Markdown), image, and mask and overlay of each checkpoint; empty values without an image."""
    if viewed is None:
        return ["", None] + [None, None] * checkpoints
    masks = [threshold.mask(logits).numpy() for logits in viewed.logits]
    note = f"{viewed.note}. Mask: {', '.join(f'{100 * mask.mean():.1f}%' for mask in masks)} of it."
    if len(masks) == 2:
        note += f" Dice between the two: {dice(*masks):.3f}."
        others = [name for name in settings.metrics if name not in PAPER_METRICS] if settings else []
        if others and settings:
            found = score_pair(masks[0], masks[1], others, nsd_tolerance=settings.nsd_tolerance).others
            shown = {metric_of(name): value for name, value in found.items() if value is not None}
            words = ", ".join(f"{metric.name} {metric.text(value)}" for metric, value in shown.items())
            note += f" The first against the second: {words}."
    if viewed.clicks:
        negative = sum(not sign for _, _, sign in viewed.clicks)
        note += f" Clicks: {len(viewed.clicks)}, {negative} of them negative."
    drawn = []
    for mask in masks:
        overlay = draw_masks(viewed.image, mask[None], first=viewed.label)
        drawn += [_reduced(mask.astype(np.uint8) * 255), _with_clicks(_reduced(overlay), viewed.clicks)]
    return [note, _with_clicks(_reduced(viewed.image), viewed.clicks), *drawn]


def _with_clicks(image: np.ndarray, clicks: Sequence[Click]) -> np.ndarray:
    """The image with a dot at each click: green where it is positive, red where not."""
    if not clicks:
        return image
    picture = Image.fromarray(image)
    draw, radius = ImageDraw.Draw(picture), max(1.0, max(picture.size) / 150)
    for x, y, positive in clicks:
        left, top = x * picture.width - radius, y * picture.height - radius
        edges = (left, top, left + 2 * radius, top + 2 * radius)
        draw.ellipse(edges, fill=_CLICK_COLOURS[positive], outline=(255, 255, 255))
    return np.asarray(picture)


def _reduced(image: np.ndarray) -> np.ndarray:
    """At most `_LONGEST_SHOWN` pixels long."""
    picture = Image.fromarray(image)
    picture.thumbnail((_LONGEST_SHOWN, _LONGEST_SHOWN), Image.Resampling.BOX)
    return np.asarray(picture)
