"""A traditional network of the paper's Table 1 as a `SegmentationModel`: one output channel per label, no prompt."""

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import Tensor, nn

from checkpointing.load_report import LoadReport
from networks import baselines
from networks.base import SegmentationModel
from networks.labels import label_indices
from utils.config import Config


class BaselineModel(SegmentationModel):
    """A baseline network. Configs allow only the strategies "full" and "none"."""

    prompt = "none"

    def __init__(self, config: Config, labels: Sequence[str]) -> None:
        super().__init__()
        self.img_size = config.sam.img_size
        self.labels = tuple(labels)
        self.unused = baselines.BASELINES[config.arch].unused
        self.network = baselines.build(config.arch, len(self.labels), self.img_size, config.baseline.size)

    def embed(self, images: Tensor) -> Tensor:
        """Logits (B, L, S, S) of all labels."""
        return self.network(images)

    def decode(self, embedded: Tensor, labels: Sequence[str], boxes: Tensor | None = None) -> Tensor:
        rows = torch.arange(len(labels), device=embedded.device)
        return embedded[rows, label_indices(labels, self.labels)]

    def load_base(self, state: Mapping[str, Tensor], path: Path, config: Config) -> LoadReport:
        """Loads torchvision's ImageNet weights into the encoder."""
        return baselines.load_encoder_weights(self.network, state, path)

    def all_used_parameters(self) -> Iterator[nn.Parameter]:
        for name, parameter in self.network.named_parameters():
            if not any(fnmatchcase(name, pattern) for pattern in self.unused):
                yield parameter
