"""The protocol that training, evaluation, prediction, counting and export rely on."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from checkpointing.load_report import LoadReport
from networks.text_prompt.encoder import TextEncoder
from utils.config import Config
from utils.errors import UserError


class NonFiniteError(UserError):
    """A model whose output is not finite."""


def check_logits(logits: Tensor) -> Tensor:
    """Returns logits of any shape. Raises: NonFiniteError if one is NaN or infinite."""
    if not torch.isfinite(logits).all():
        raise NonFiniteError(
            "the model's output is not finite (NaN or infinite): its training failed; train it with a lower training.lr"
        )
    return logits


class SegmentationModel(nn.Module):
    """Maps images and prompts to mask logits, and names the groups of parameters that the strategies train.

    Attributes:
        img_size: S, the side of the square images in pixels.
        prompt: how the model is prompted (`prompts.type`), or "none" for a network without prompts.
        base_sha256: the hash of the base weights' file, "" for a start from random weights.
        text_encoder: turns labels into features, or None.
    """

    img_size: int
    prompt: str
    base_sha256: str = ""

    def __init__(self) -> None:
        super().__init__()
        self.text_encoder: TextEncoder | None = None

    def forward(
        self, images: Tensor, labels: Sequence[str], boxes: Tensor | None = None, encoded: Any = None
    ) -> Tensor:
        """Mask logits of each image for its label.

        Args:
            images: (B, 3, S, S) float, normalized.
            labels: B label names; a box prompt does not look at them.
            boxes: (B, 4) x0, y0, x1, y1 in pixels of the square, where the prompt is a box; else None.
            encoded: what `encode` gave for the images, where that is known already.

        Returns:
            (B, S, S) float logits.
        """
        embedded = self.embed(images) if encoded is None else self.embed_encoded(images, encoded)
        return self.decode(embedded, labels, boxes)

    def embed(self, images: Tensor) -> Any:
        """Everything computed from (B, 3, S, S) images alone, before any prompt: tensors with B first."""
        raise NotImplementedError

    def encode(self, images: Tensor) -> list[Tensor]:
        """The image encoder's output for (B, 3, S, S) images: tensors with B first. Baselines have none."""
        raise NotImplementedError

    def embed_encoded(self, images: Tensor, encoded: Sequence[Tensor]) -> Any:
        """As `embed`, from what `encode` gave for the images."""
        raise NotImplementedError

    def decode(self, embedded: Any, labels: Sequence[str], boxes: Tensor | None = None) -> Tensor:
        """Mask logits (B, S, S) from what `embed` gave; prompts as for `forward`."""
        raise NotImplementedError

    def load_base(self, state: Mapping[str, Tensor], path: Path, config: Config) -> LoadReport:
        """Loads base weights in place and reports on every key.

        Args:
            state: an official file's state dict, or what `base_state` gave.
            path: the file that the state came from, for errors.

        Raises:
            UserError: the state does not fit; the model is then unchanged.
        """
        raise NotImplementedError

    def base_state(self) -> dict[str, Tensor]:
        """The weights that another model can start from, under an official file's names. Merge adapters first."""
        return self.state_dict()

    def load_own_parts(self, other: "SegmentationModel") -> list[str]:
        """Copies from `other` what official files lack and both have; returns the copied keys."""
        return []

    def default_targets(self, method: str) -> Sequence[str]:
        """Name patterns of the layers that an adapter method replaces by default."""
        return ()

    def encoder_blocks(self) -> Iterator[nn.Module]:
        """The image encoder's transformer blocks, which gradient checkpointing recomputes; by default none."""
        yield from ()

    def always_trained(self) -> Iterator[nn.Parameter]:
        """The parameters that every parameter-efficient strategy trains besides its adapters."""
        yield from ()

    def encoder_biases(self) -> Iterator[nn.Parameter]:
        """The image encoder's biases."""
        yield from ()

    def decoder_parameters(self) -> Iterator[nn.Parameter]:
        """The mask decoder's parameters on which the output depends."""
        yield from ()

    def prompt_parameters(self) -> Iterator[nn.Parameter]:
        """The prompt's own parameters."""
        yield from ()

    def all_used_parameters(self) -> Iterator[nn.Parameter]:
        """Every parameter on which the output depends."""
        raise NotImplementedError

    def uncounted_parameters(self) -> Iterator[nn.Parameter]:
        """The image encoder's parameters that the paper's totals omit while they are frozen."""
        yield from ()

    @property
    def clip_sha256(self) -> str:
        """The hash of the CLIP weights behind the prompts, "" without CLIP."""
        return "" if self.text_encoder is None else self.text_encoder.weights_sha256
