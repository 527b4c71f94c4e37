"""A traditional network of the paper's Table 1 as a `SegmentationModel`: one output channel a label, no prompt."""

import logging
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import Tensor, nn

from checkpointing.tensor_files import read_state_dict
from networks import baselines
from networks.base import SegmentationModel
from utils.config import Config
from utils.errors import ConfigError, UserError
from utils.files import sha256

log = logging.getLogger(__name__)


class BaselineModel(SegmentationModel):
    """A network of `baselines`, trained whole."""

    prompt = "none"

    def __init__(self, config: Config, labels: Sequence[str]) -> None:
        super().__init__()
        self.img_size = config.sam.img_size
        self.labels = tuple(labels)
        self.idle = baselines.BASELINES[config.arch].idle
        try:
            self.network = baselines.build(config.arch, len(self.labels), self.img_size, config.baseline.size)
        except baselines.BaselineError as error:
            raise ConfigError(f"arch: {error}") from error

    def embed(self, images: Tensor) -> Tensor:
        """Logits (B, L, S, S) of all labels."""
        return self.network(images)

    def decode(self, embedded: Tensor, labels: Sequence[str], boxes: Tensor | None = None) -> Tensor:
        for label in labels:
            if label not in self.labels:
                raise UserError(f"label '{label}' is unknown to this model; it knows {', '.join(self.labels)}")
        rows = torch.arange(len(labels), device=embedded.device)
        return embedded[rows, [self.labels.index(label) for label in labels]]

    def load_base(self, path: Path, config: Config) -> None:
        """Loads torchvision's ImageNet weights into the encoder."""
        try:
            report = baselines.load_encoder_weights(self.network, read_state_dict(path))
        except baselines.BaselineError as error:
            raise UserError(f"{path}: {error}") from error
        self.base_sha256 = sha256(path)
        log.info("%s: %s", path, report)

    def all_used_parameters(self) -> Iterator[nn.Parameter]:
        for name, parameter in self.network.named_parameters():
            if not any(fnmatchcase(name, pattern) for pattern in self.idle):
                yield parameter
