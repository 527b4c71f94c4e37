"""The prompts that training draws: text, jittered boxes, and clicks on the errors of the current prediction.

All draws come from torch's global CPU generator, whose state a run saves, so that a resumed run draws the same.
"""

from collections.abc import Sequence

import numpy as np
import torch
from accelerate.utils import recursively_apply
from torch import Tensor

from evaluation.prompts import boxes_around, click_rounds
from networks.prompted import PromptedModel

KINDS = ("text", "box", "points")
# Noise of a box's sides: normal, its deviation a share of the side, its size limited (Kirillov et al., 2023, A).
_JITTER = 0.1
_LARGEST_JITTER = 20 / 1024  # of the image's side


def prediction_rounds(
    model: PromptedModel,
    images: Tensor,
    labels: list[str],
    masks: Tensor,
    encoded: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """The predictions that a step learns from, logits (B, S, S) each: one, or after every click.

    A sample without clicks has the same prediction in every round.

    Args:
        images: (B, 3, S, S); `encoded` is what `model.encode` gave for them, where that is known already.
        masks: (B, S, S) in {0, 1}.
    """
    embedded = model.embed(images) if encoded is None else model.embed_encoded(images, encoded)
    kinds = np.array([model.prompt] * len(images))
    if model.prompt == "mixed":
        kinds = np.array(KINDS)[torch.randint(len(KINDS), (len(images),)).numpy()]
    text = model.text_tokens(labels) if model.text_encoder is not None else None  # of all: BatchNorm may be in it
    rounds = [torch.zeros_like(masks) for _ in range(model.clicks if "points" in kinds else 1)]
    for kind in KINDS:
        rows = torch.from_numpy(np.flatnonzero(kinds == kind)).to(masks.device)
        if not len(rows):
            continue
        part = recursively_apply(lambda tensor, rows=rows: tensor[rows], embedded)
        if kind == "points":
            found = list(click_rounds(model, part, masks[rows], random_click))
        else:
            tokens = model.box_tokens(jittered_boxes(masks[rows])) if text is None or kind == "box" else text[rows]
            found = [model.decode_prompt(part, tokens)[0]] * len(rounds)
        rounds = [whole.index_copy(0, rows, logits.float()) for whole, logits in zip(rounds, found, strict=True)]
    return rounds


def jittered_boxes(masks: Tensor) -> Tensor:
    """Boxes (B, 4) around masks (B, S, S), each side moved at random; around the whole square where a mask is empty."""
    last = masks.shape[-1] - 1
    boxes = boxes_around(masks, masks.new_tensor([0, 0, last, last]).expand(len(masks), 4))
    sides = (boxes[:, 2:] - boxes[:, :2] + 1).repeat(1, 2)  # width, height, width, height
    noise = torch.randn(boxes.shape).to(boxes.device) * _JITTER * sides
    largest = _LARGEST_JITTER * masks.shape[-1]
    moved = (boxes + noise.clamp(-largest, largest)).clamp(0, last)
    first, second = moved[:, :2], moved[:, 2:]
    return torch.cat([torch.minimum(first, second), torch.maximum(first, second)], dim=1)


def random_click(missed: np.ndarray, false: np.ndarray) -> tuple[int, int]:
    """A pixel drawn from all wrong ones, each as likely."""
    rows, columns = (missed | false).nonzero()
    chosen = int(torch.randint(len(rows), ()))
    return int(rows[chosen]), int(columns[chosen])
