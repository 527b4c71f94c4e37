"""The optimizer and the learning rate's schedule."""

import math

import torch
from torch import nn

from utils.config.schema import TrainingConfig


def build_optimizer(model: nn.Module, training: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW or SGD over every trainable parameter, in one parameter group."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if training.optimizer == "sgd":
        return torch.optim.SGD(parameters, training.lr, training.momentum, weight_decay=training.weight_decay)
    return torch.optim.AdamW(parameters, training.lr, weight_decay=training.weight_decay)


def learning_rate_factor(training: TrainingConfig, step: int, steps_per_epoch: int) -> float:
    """The share of the base learning rate at an optimizer step, counted from 0 over the whole run.

    Linear warm-up over `warmup_steps`, times the schedule: "step" multiplies by schedule_step_factor every
    schedule_step epochs, "multistep" by decay_factor at each epoch in `steps`, "cosine" falls to 0 at the end.
    """
    warmup = min(1.0, (step + 1) / training.warmup_steps) if training.warmup_steps else 1.0
    epoch = step // steps_per_epoch
    if training.schedular == "step":
        return warmup * training.schedule_step_factor ** (epoch // training.schedule_step)
    if training.schedular == "multistep":
        return warmup * training.decay_factor ** sum(epoch >= milestone for milestone in training.steps)
    if training.schedular == "cosine":
        total = training.num_epochs * steps_per_epoch
        start = min(training.warmup_steps, total - 1)
        return warmup * 0.5 * (1 + math.cos(math.pi * max(0, step - start) / (total - start)))
    return warmup
