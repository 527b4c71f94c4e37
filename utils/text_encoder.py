"""Text prompts: one feature vector a label, and the affine layer that makes a prompt token of it."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from utils.errors import ConfigError, UserError

TextEncoderKind = Literal["clip", "learned"]
TextAffineNorm = Literal["layernorm", "batchnorm"]

TEXT_FEATURES = 512
# Image and text tower of CLIP ViT-B/32: the paper counts all of it in the percentage of trained parameters.
CLIP_PARAMETERS = 151_277_313


class TextEncoder(nn.Module):
    """Features of label names: called with B labels, returns (B, 512) float32.

    `frozen_parameters` counts the weights that made the features and that are not kept in memory (CLIP's), so that
    percentages can be given the paper's way.
    """

    frozen_parameters = 0

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__()
        self.labels = tuple(labels)

    def rows(self, labels: Sequence[str]) -> list[int]:
        """Positions of `labels` among those known.

        Raises:
            UserError: a label that this model was not built for.
        """
        for label in labels:
            if label not in self.labels:
                raise UserError(f"label '{label}' is unknown to this model; it knows {', '.join(self.labels)}")
        return [self.labels.index(label) for label in labels]


class LearnedTextEncoder(TextEncoder):
    """A trained embedding a label, for users without CLIP's weights."""

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__(labels)
        self.embedding = nn.Embedding(len(self.labels), TEXT_FEATURES)

    def forward(self, labels: Sequence[str]) -> Tensor:
        return self.embedding(torch.tensor(self.rows(labels), device=self.embedding.weight.device))


class UncomputedClipEncoder(TextEncoder):
    """Stands where CLIP's features would, in models that are only counted (meta device)."""

    frozen_parameters = CLIP_PARAMETERS

    def forward(self, labels: Sequence[str]) -> Tensor:
        raise ConfigError("prompts.text_encoder: clip is not built yet; set prompts.text_encoder: learned")


def build_text_encoder(kind: TextEncoderKind, labels: Sequence[str], counted_only: bool = False) -> TextEncoder:
    """The text encoder of a config for these foreground labels; `counted_only` needs no weights.

    Raises:
        ConfigError: CLIP is asked for.
    """
    if kind == "learned":
        return LearnedTextEncoder(labels)
    if not counted_only:
        raise ConfigError("prompts.text_encoder: clip is not built yet; set prompts.text_encoder: learned")
    return UncomputedClipEncoder(labels)


class SingleSampleBatchNorm1d(nn.BatchNorm1d):
    """BatchNorm1d that normalizes a batch of one with its running statistics, where the stock layer fails."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.shape[0] == 1:
            return nn.functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(x)


def build_text_affine(prompt_dim: int, norm: TextAffineNorm = "layernorm") -> nn.Sequential:
    """(B, 512) -> (B, prompt_dim): Linear, ReLU, norm.

    "batchnorm" is what the released SALT code has: with a single label in the batch, its output is its bias alone.
    """
    last = nn.LayerNorm(prompt_dim) if norm == "layernorm" else SingleSampleBatchNorm1d(prompt_dim)
    return nn.Sequential(nn.Linear(TEXT_FEATURES, prompt_dim), nn.ReLU(), last)
