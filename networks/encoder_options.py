"""How the image encoder runs in training: with gradient checkpointing of its blocks, or compiled."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from networks.base import SegmentationModel
from utils.errors import ConfigError


def checkpoint_blocks(model: SegmentationModel) -> None:
    """Turns on gradient checkpointing: training keeps the input of each of `model.encoder_blocks()` alone.

    The backward pass recomputes the blocks, with the same dropout, so that the gradients stay the same.

    Raises:
        ConfigError: a model without encoder blocks.
    """
    blocks = list(model.encoder_blocks())
    if not blocks:
        raise ConfigError(
            f"training.gradient_checkpointing: {type(model).__name__} has no encoder blocks; set it false"
        )
    for block in blocks:
        _in_training_only(block, partial(checkpoint, block.forward, use_reentrant=False))


def compile_encoder(model: nn.Module) -> None:
    """Compiles the image encoder, or a whole model that has none, for training. Evaluation runs uncompiled."""
    encoder = getattr(model, "image_encoder", model)
    _in_training_only(encoder, torch.compile(encoder.forward))


def _in_training_only(module: nn.Module, training_forward: Callable[..., Any]) -> None:
    plain_forward = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        chosen = training_forward if module.training and torch.is_grad_enabled() else plain_forward
        return chosen(*args, **kwargs)

    module.forward = forward
