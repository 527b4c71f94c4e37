"""Text prompts: one feature vector per label, and the affine layer that maps it to a prompt token."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from checkpointing.published import DOWNLOADS, weights_folder
from networks.batch_norm import SingleValueBatchNorm
from networks.labels import label_indices
from networks.text_prompt.features import TEXT_FEATURES, clip_text_features
from utils.config.options import TextAffineNorm
from utils.config.schema import PromptsConfig

# Image and text tower of CLIP ViT-B/32: the paper's percentages of trained parameters count both.
CLIP_PARAMETERS = 151_277_313


class TextEncoder(nn.Module):
    """Features of label names: called with B labels, returns (B, 512) float32.

    Raises UserError for a label that it was not built for.

    Attributes:
        labels: the labels that it knows.
        weights_sha256: the hash of the CLIP weights behind the features, "" without CLIP.
        frozen_parameters: how many weights those are. They are not kept in memory, but the paper counts them.
        saved_buffers: names of the buffers that a weights file keeps.
    """

    frozen_parameters = 0
    saved_buffers: tuple[str, ...] = ()

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__()
        self.labels = tuple(labels)
        self.weights_sha256 = ""


class LearnedTextEncoder(TextEncoder):
    """One trained embedding per label, for users without CLIP's weights."""

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__(labels)
        self.embedding = nn.Embedding(len(self.labels), TEXT_FEATURES)

    def forward(self, labels: Sequence[str]) -> Tensor:
        indices = label_indices(labels, self.labels)
        return self.embedding(torch.tensor(indices, device=self.embedding.weight.device))


class ClipTextEncoder(TextEncoder):
    """CLIP's frozen features of the labels: `features` (L, 512), zero until `encode` or a weights file fills them in.

    A trained model's weights file carries the features, so that it needs no CLIP.
    """

    frozen_parameters = CLIP_PARAMETERS
    saved_buffers = ("features",)

    features: Tensor

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__(labels)
        self.register_buffer("features", torch.zeros(len(self.labels), TEXT_FEATURES))

    def encode(self, prompts: PromptsConfig) -> None:
        """Fills in each label's features, the mean over the templates. Raises: as `clip_text_features`."""
        texts = [template.replace("{label}", label) for label in self.labels for template in prompts.templates]
        found = clip_text_features(texts, prompts.clip_path or weights_folder() / DOWNLOADS["clip_vit_b32"].file_name)
        self.weights_sha256 = found.weights_sha256
        self.features.copy_(found.features.unflatten(0, (len(self.labels), -1)).mean(1))

    def forward(self, labels: Sequence[str]) -> Tensor:
        return self.features[label_indices(labels, self.labels)]


def build_text_encoder(prompts: PromptsConfig, labels: Sequence[str], encode: bool = True) -> TextEncoder:
    """The text encoder of a config for these foreground labels.

    Args:
        encode: False leaves CLIP's features zero, to count parameters or to load a weights file.

    Raises:
        UserError: CLIP's weights are missing, or are not those of ViT-B/32.
    """
    if prompts.text_encoder == "learned":
        return LearnedTextEncoder(labels)
    encoder = ClipTextEncoder(labels)
    if encode:
        encoder.encode(prompts)
    return encoder


def build_text_affine(prompt_dim: int, norm: TextAffineNorm = "layernorm") -> nn.Sequential:
    """(B, 512) -> (B, prompt_dim): Linear, ReLU, norm.

    "batchnorm" is the released SALT code's; where all labels of a batch are equal, it outputs only its bias.
    """
    last = nn.LayerNorm(prompt_dim) if norm == "layernorm" else SingleValueBatchNorm(prompt_dim)
    return nn.Sequential(nn.Linear(TEXT_FEATURES, prompt_dim), nn.ReLU(), last)
