"""What training, evaluation, prediction, counting and export need from a model."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from utils.config import Config


class SegmentationModel(nn.Module):
    """Images and prompts in, mask logits out; and which of its parameters the strategies train.

    Attributes:
        img_size: S, the side of the square images in pixels.
        prompt: "text", "box_full" or "box_oracle" (`prompts.type`), or "none" for a network without prompts.
        base_sha256: hash of the base weights' file, "" where it started from random weights.
        text_encoder: what turns labels into features, or None.
    """

    img_size: int
    prompt: str
    base_sha256: str = ""

    def __init__(self) -> None:
        super().__init__()
        self.text_encoder: nn.Module | None = None

    def forward(self, images: Tensor, labels: Sequence[str], boxes: Tensor | None = None) -> Tensor:
        """Mask logits of each image for its label.

        Args:
            images: (B, 3, S, S) float, normalized.
            labels: B label names; a box prompt does not look at them.
            boxes: (B, 4) x0, y0, x1, y1 in pixels of the square, where the prompt is a box; else None.

        Returns:
            (B, S, S) float logits.
        """
        return self.decode(self.embed(images), labels, boxes)

    def embed(self, images: Tensor) -> Any:
        """All of (B, 3, S, S) images that no prompt changes: tensors with B first."""
        raise NotImplementedError

    def decode(self, embedded: Any, labels: Sequence[str], boxes: Tensor | None = None) -> Tensor:
        """Mask logits (B, S, S) from what `embed` gave; prompts as for `forward`."""
        raise NotImplementedError

    def load_base(self, path: Path, config: Config) -> None:
        """Loads base weights, sets `base_sha256` and logs what became of every key.

        Raises:
            UserError: a file that is unreadable or does not fit.
        """
        raise NotImplementedError

    def adapted_layers(self, method: str) -> Sequence[str]:
        """Name patterns of the layers that an adapter method replaces by default."""
        return ()

    def encoder_blocks(self) -> Iterator[nn.Module]:
        """The image encoder's transformer blocks, which gradient checkpointing computes again; none without such."""
        yield from ()

    def always_trained(self) -> Iterator[nn.Parameter]:
        """What every parameter-efficient strategy trains beside its adapters."""
        yield from ()

    def encoder_biases(self) -> Iterator[nn.Parameter]:
        """The image encoder's biases."""
        yield from ()

    def decoder_parameters(self) -> Iterator[nn.Parameter]:
        """The mask decoder's parameters that the output depends on."""
        yield from ()

    def text_parameters(self) -> Iterator[nn.Parameter]:
        """The text prompt's own parameters."""
        yield from ()

    def all_used_parameters(self) -> Iterator[nn.Parameter]:
        """Every parameter that the output depends on."""
        raise NotImplementedError

    def uncounted_parameters(self) -> Iterator[nn.Parameter]:
        """Those of the image encoder that the paper's totals leave out while they are frozen."""
        yield from ()

    @property
    def clip_sha256(self) -> str:
        """The hash of the CLIP weights behind the prompts, "" without CLIP."""
        return getattr(self.text_encoder, "weights_sha256", "")
