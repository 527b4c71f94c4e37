"""Prompts drawn from the true mask: a box around it, and clicks on what a prediction has wrong."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from networks.base import SegmentationModel
from networks.prompted import PromptedModel

Encode = Callable[[Tensor, Sequence[str]], list[Tensor]]  # `model.encode` of images (B, 3, S, S) with these names
# What is missed and what is false of a prediction, each (h, w) bool -> row and column of the next click.
Choose = Callable[[np.ndarray, np.ndarray], tuple[int, int]]


def prompted_logits(
    model: SegmentationModel, batch: dict[str, Any], device: torch.device, encode: Encode | None = None
) -> Tensor:
    """The logits (B, S, S) of a batch as `model.prompt` asks for them; with points, those after the last click.

    Text where the model is "mixed". The same batch has the same prompts, always. `encode` takes the place of
    `model.encode`.
    """
    images = batch["image"].to(device)
    known = {"encoded": encode(images, batch["name"])} if encode else {}
    if model.prompt == "points" and isinstance(model, PromptedModel):
        masks = batch["mask"].to(device)
        embedded = model.embed_encoded(images, **known) if known else model.embed(images)
        *_, last = click_rounds(model, embedded, masks, central_click, batch["valid"])
        return last
    boxes = prompt_boxes(model.prompt, batch)
    return model(images, batch["label"], boxes if boxes is None else boxes.to(device), **known)


def prompt_boxes(prompt: str, batch: dict[str, Any]) -> Tensor | None:
    """The box prompts of a batch: (B, 4) pixel coordinates x0, y0, x1, y1, inclusive; None for other prompts.

    "box_full" is the whole image, "box" and "box_oracle" the box around the true mask (the whole image where that is
    empty).
    """
    if prompt not in ("box_full", "box", "box_oracle"):
        return None
    heights, widths = batch["valid"]
    zeros = torch.zeros_like(widths)
    whole = torch.stack([zeros, zeros, widths - 1, heights - 1], dim=1).float()
    return whole if prompt == "box_full" else boxes_around(batch["mask"], whole)


def boxes_around(masks: Tensor, otherwise: Tensor) -> Tensor:
    """The smallest boxes (B, 4) that hold the pixels of masks (B, S, S); `otherwise` (B, 4) where a mask is empty."""
    boxes = otherwise.clone()
    for i, mask in enumerate(masks):
        rows, columns = (mask > 0).nonzero(as_tuple=True)
        if len(rows):
            boxes[i] = torch.stack([columns.min(), rows.min(), columns.max(), rows.max()])
    return boxes


def click_rounds(
    model: PromptedModel, embedded: Any, masks: Tensor, choose: Choose, valid: Sequence[Tensor] | None = None
) -> Iterator[Tensor]:
    """Yields the logits (B, S, S) after each of `model.clicks` clicks.

    The first click lies in the true mask. Each further one lies where the prediction before is wrong: positive where
    it misses the label, negative where it is false. Where nothing is wrong, it confirms the label, or the background
    of an empty mask.

    Args:
        embedded: as `model.embed` gives it.
        masks: the true masks, (B, S, S).
        choose: finds a click among the wrong pixels.
        valid: heights and widths (B,) of the parts without padding; None for whole squares.
    """
    truths = (masks > 0.5).cpu().numpy()
    sizes = [truth.shape for truth in truths] if valid is None else list(zip(*(v.tolist() for v in valid), strict=True))
    predictions = np.zeros_like(truths)
    points: list[Tensor] = []
    positive: list[Tensor] = []
    low_res: Tensor | None = None
    for _ in range(model.clicks):
        places, signs = [], []
        for prediction, truth, (h, w) in zip(predictions, truths, sizes, strict=True):
            row, column = choose(*_wrong(prediction[:h, :w], truth[:h, :w]))
            places.append([column, row])
            signs.append(bool(truth[row, column]))
        points.append(torch.tensor(places, dtype=torch.float32, device=masks.device))
        positive.append(torch.tensor(signs, device=masks.device))
        tokens = model.point_tokens(torch.stack(points, dim=1), torch.stack(positive, dim=1))
        logits, low_res = model.decode_prompt(embedded, tokens, low_res)
        low_res = low_res.detach()  # the next click learns from what it is shown, not the last one from the next
        predictions = (logits.detach() > 0).cpu().numpy()
        yield logits


def central_click(missed: np.ndarray, false: np.ndarray) -> tuple[int, int]:
    """The wrong pixel that is farthest from the boundary of its region; the first one, row by row, of several.

    What is missed and what is false are two regions; the image's border is a boundary. It is how interactive
    segmentation is evaluated (Sofiiuk et al., arXiv 2102.06583), and SAM2's way ("center").
    """
    inside = [distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1] for region in (missed, false)]
    row, column = np.unravel_index(np.maximum(*inside).argmax(), missed.shape)
    return int(row), int(column)


def _wrong(prediction: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    missed, false = truth & ~prediction, prediction & ~truth
    if not (missed.any() or false.any()):
        missed, false = truth, np.full_like(truth, not truth.any())
    return missed, false
