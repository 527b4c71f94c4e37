"""How the image encoder is run in training: blocks computed again in the backward pass, or compiled."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from networks.recompute import computed_again
from utils.errors import ConfigError


def checkpoint_blocks(model: nn.Module) -> None:
    """Makes training keep only the input of each of `model.encoder_blocks()`; the backward pass computes them again.

    Gradients stay the same, dropout included.

    Raises:
        ConfigError: a model without encoder blocks.
    """
    blocks = list(model.encoder_blocks())
    if not blocks:
        raise ConfigError(
            f"training.gradient_checkpointing: {type(model).__name__} has no encoder blocks; set it false"
        )
    for block in blocks:
        _in_training_only(block, partial(computed_again, block.forward))


def compile_encoder(model: nn.Module) -> None:
    """Compiles the image encoder, or the whole of a model that has none, for training; evaluation runs as it is."""
    encoder = getattr(model, "image_encoder", model)
    _in_training_only(encoder, torch.compile(encoder.forward))


def _in_training_only(module: nn.Module, training_forward: Callable[..., Any]) -> None:
    plain_forward = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        chosen = training_forward if module.training and torch.is_grad_enabled() else plain_forward
        return chosen(*args, **kwargs)

    module.forward = forward
