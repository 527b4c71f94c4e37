"""Text prompts: one feature vector a label, and the affine layer that makes a prompt token of it."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from checkpointing.published import DOWNLOADS, WEIGHTS_FOLDER
from networks.text_prompt.features import TEXT_FEATURES, clip_text_features
from utils.config.schema import PromptsConfig
from utils.errors import UserError

TextAffineNorm = Literal["layernorm", "batchnorm"]

# Image and text tower of CLIP ViT-B/32: the paper counts all of it in the percentage of trained parameters.
CLIP_PARAMETERS = 151_277_313
CLIP_PATH = WEIGHTS_FOLDER / DOWNLOADS["clip_vit_b32"].file_name


class TextEncoder(nn.Module):
    """Features of label names: called with B labels, returns (B, 512) float32.

    `frozen_parameters` counts the weights that made the features and that are not kept in memory (CLIP's), so that
    percentages can be given the paper's way. `saved_buffers` names the buffers that a weights file keeps.
    """

    frozen_parameters = 0
    saved_buffers: tuple[str, ...] = ()

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


class ClipTextEncoder(TextEncoder):
    """CLIP's features of the labels, frozen; the weights file of a trained model carries them, and CLIP itself is gone.

    `features` (L, 512) is zero until they are filled in; `weights_sha256` is the hash of the CLIP that made them.
    """

    frozen_parameters = CLIP_PARAMETERS
    saved_buffers = ("features",)

    features: Tensor

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__(labels)
        self.weights_sha256 = ""
        self.register_buffer("features", torch.zeros(len(self.labels), TEXT_FEATURES))

    def encode(self, prompts: PromptsConfig) -> None:
        """Fills in the features: of each label, the mean over the templates. Raises: as `clip_text_features`."""
        texts = [template.replace("{label}", label) for label in self.labels for template in prompts.templates]
        found = clip_text_features(texts, prompts.clip_path or CLIP_PATH)
        self.weights_sha256 = found.weights_sha256
        self.features.copy_(found.features.unflatten(0, (len(self.labels), -1)).mean(1))

    def forward(self, labels: Sequence[str]) -> Tensor:
        return self.features[self.rows(labels)]


def build_text_encoder(prompts: PromptsConfig, labels: Sequence[str], encode: bool = True) -> TextEncoder:
    """The text encoder of a config for these foreground labels.

    `encode=False` leaves CLIP's features zero: for models that are only counted, or that a weights file will fill.

    Raises:
        UserError: CLIP's weights are missing or foreign.
    """
    if prompts.text_encoder == "learned":
        return LearnedTextEncoder(labels)
    encoder = ClipTextEncoder(labels)
    if encode:
        encoder.encode(prompts)
    return encoder


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
