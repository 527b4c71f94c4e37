"""Prompts that a user gives for one image: clicks and boxes in the image's own pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from data_transforms.data_transforms import to_native
from networks.base import check_logits
from networks.prompted import PromptedModel


@dataclass(frozen=True)
class Prompt:
    """What a user shows of one label: x to the right and y down, in the image's own pixels, the first one 0, 0.

    Attributes:
        clicks: (x, y, positive), in the order in which they are made. Each is shown to the model with those before it
            and with the mask before it, as in training.
        boxes: (x0, y0, x1, y1); the mask is the union of the masks of all.
    """

    clicks: Sequence[tuple[float, float, bool]] = ()
    boxes: Sequence[tuple[float, float, float, float]] = ()

    def __post_init__(self) -> None:
        if bool(self.clicks) == bool(self.boxes):
            raise ValueError("expected clicks or boxes")


@dataclass(frozen=True)
class Interaction:
    """An image that is embedded once, whatever is shown of it.

    Attributes:
        embedded: as `model.embed` gave it for one image.
        valid: (h, w) of the part of the model's square that the image fills.
        size: (H, W) of the image.
    """

    model: PromptedModel
    embedded: Any
    valid: tuple[int, int]
    size: tuple[int, int]
    device: torch.device

    @torch.no_grad()
    def logits(self, prompt: Prompt) -> Tensor:
        """The logits (H, W) of what is shown, float32 on the CPU. Raises: NonFiniteError."""
        if prompt.boxes:
            scale = self._scale.repeat(2)
            boxes = [torch.tensor([box], dtype=torch.float32, device=self.device) * scale for box in prompt.boxes]
            each = [self.model.decode_prompt(self.embedded, self.model.box_tokens(box))[0] for box in boxes]
            square = torch.cat(each).amax(0)
        else:
            square = self._after_clicks(prompt.clicks)
        return to_native(check_logits(square.float().cpu()), self.valid, self.size)

    def _after_clicks(self, clicks: Sequence[tuple[float, float, bool]]) -> Tensor:
        places = [[x, y] for x, y, _ in clicks]
        points = torch.tensor([places], dtype=torch.float32, device=self.device) * self._scale
        positive = torch.tensor([[sign for _, _, sign in clicks]], device=self.device)
        logits: Tensor | None = None
        low_res: Tensor | None = None
        for count in range(1, len(clicks) + 1):
            tokens = self.model.point_tokens(points[:, :count], positive[:, :count])
            logits, low_res = self.model.decode_prompt(self.embedded, tokens, low_res)
        assert logits is not None
        return logits[0]

    @property
    def _scale(self) -> Tensor:
        """From the image's pixels to the square's, (x, y): as the packages' predictors scale coordinates."""
        (height, width), (h, w) = self.size, self.valid
        return torch.tensor([w / width, h / height], device=self.device)
