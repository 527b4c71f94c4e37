"""One training run: all that it holds."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import adapters
from datasets.data import GeneralDataset
from networks.base import SegmentationModel
from networks.prompted import PromptedModel
from training.batch_norm import sync_batch_norm
from training.data_digest import DataDigest, data_digest
from training.embeddings import EmbeddingCache
from training.optimizer import build_optimizer
from training.processes import Processes
from training.prompts import prediction_rounds
from training.run_folder import RunFolder
from training.signals import StopRequests
from training.weight_average import WeightAverage
from utils.config import Config
from utils.losses import SegmentationLoss


@dataclass
class EpochProgress:
    """The steps done of the current epoch, and sums over their samples: an epoch may be interrupted."""

    step: int = 0
    samples: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    rate: float = 0.0
    skipped_steps: int = 0
    seconds: float = 0.0

    @property
    def means(self) -> dict[str, float]:
        """The means over the samples so far; there must be at least one."""
        return {key: value / self.samples for key, value in self.sums.items()}


@dataclass
class Progress:
    """Where a run stands: complete epochs, the best validation Dice and its epoch, seconds of each epoch.

    `cut` says what a cut of the ranks did (`training.pruning`); None before it, and for runs without one.
    """

    epoch: int = 0
    best_dice: float = -1.0
    best_epoch: int = 0
    seconds: list[float] = field(default_factory=list)
    skipped_steps: int = 0
    skipped_in_a_row: int = 0
    cut: dict[str, Any] | None = None
    so_far: EpochProgress = field(default_factory=EpochProgress)


class Objective(nn.Module):
    """Model and loss in one forward pass: DistributedDataParallel must see every use of a parameter in it."""

    def __init__(self, model: SegmentationModel, loss: SegmentationLoss, reg_multiplier: float) -> None:
        super().__init__()
        self.model, self.loss, self.reg_multiplier = model, loss, reg_multiplier

    def forward(
        self, images: torch.Tensor, labels: list[str], masks: torch.Tensor, encoded: list[torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Logits (B, S, S), and the losses by name with their sum "total", in float32 whatever the precision.

        With clicks, the logits are those after the last one, and the losses the means over all of them.
        """
        regularization = None
        if self.reg_multiplier:  # first, so that its gradients come last, when the activations are freed
            with torch.autocast(images.device.type, enabled=False):
                regularization = adapters.regularization_loss(self.model)
        if isinstance(self.model, PromptedModel) and self.model.prompt != "text":
            rounds = prediction_rounds(self.model, images, labels, masks, encoded)
        else:
            rounds = [self.model(images, labels) if encoded is None else self.model(images, labels, encoded=encoded)]
        logits = rounds[-1]
        parts = [self.loss.parts(each, masks) for each in rounds]
        losses = {name: torch.stack([part[name] for part in parts]).mean() for name in parts[0]}
        if regularization is not None:
            losses["regularization"] = regularization
            losses["total"] = losses["total"] + self.reg_multiplier * regularization
        return logits, losses


@dataclass
class Run:
    """Everything that one training run holds.

    `save(path, epoch)` writes a weights file of the model as it is.
    """

    model: SegmentationModel
    config: Config
    folder: RunFolder
    processes: Processes
    stop: StopRequests
    save: Callable[[Path, int], None]
    train_set: GeneralDataset
    val_set: GeneralDataset
    progress: Progress = field(default_factory=Progress)
    pictures: dict[str, np.ndarray] = field(default_factory=dict)  # of the last epoch, if it was the best so far

    def __post_init__(self) -> None:
        training = self.config.training
        if self.processes.count > 1 and training.sync_batch_norm:
            sync_batch_norm(self.model, self.processes.device)
        self.start_optimizer()

    def start_optimizer(self) -> None:
        """Makes objective, optimizer and moving average of the model's parameters; again after these were replaced."""
        training = self.config.training
        self.average = WeightAverage(self.model, training.ema_decay) if training.ema_decay else None
        size = training.cache_embeddings
        self.embeddings = EmbeddingCache(self.model, self.processes, size) if size else None
        loss = SegmentationLoss.of(training)
        vars(self).pop("objective", None)  # DistributedDataParallel frees its hooks before it is made anew
        objective = Objective(self.model, loss, training.reg_multiplier)
        optimizer = build_optimizer(self.model, training)
        used = {id(p) for p in self.model.all_used_parameters()}
        idle = any(p.requires_grad and id(p) not in used for p in self.model.parameters())
        some_unused = idle or self.model.prompt == "mixed"
        self.objective, self.optimizer = self.processes.prepare(objective, optimizer, some_unused)

    @cached_property
    def data(self) -> DataDigest:
        """What this run is trained on."""
        return data_digest(self.config, self.train_set, self.val_set)

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Context manager: the model has the moving average's weights, where there is one."""
        if self.average is None:
            yield
        else:
            with self.average.applied():
                yield
