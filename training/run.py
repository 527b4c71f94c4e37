"""One training run: all that it holds, and how it is saved to last/ and taken up from there."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

import adapters
from checkpointing import weights_file
from datasets.data import GeneralDataset
from networks.encoder_options import checkpoint_blocks, compile_encoder
from training.optimizer import build_optimizer
from training.processes import Processes
from training.random_state import random_state, set_random_state
from training.signals import StopRequests
from training.state_files import StateFolder
from training.synced_batch_norm import sync_batch_norm
from training.weight_average import WeightAverage
from utils.config import Config
from utils.config.sources import dotted, parse_yaml, show
from utils.errors import UserError
from utils.losses import SegmentationLoss

log = logging.getLogger(__name__)

BEST_FILE = "best_val.safetensors"
LAST_FOLDER = "last"


@dataclass
class EpochSoFar:
    """The steps done of the epoch in flight, and sums over their samples: an epoch may be interrupted."""

    step: int = 0
    samples: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    rate: float = 0.0
    skipped_steps: int = 0
    seconds: float = 0.0


@dataclass
class Progress:
    """Where a run stands: complete epochs, the best validation Dice and its epoch, seconds of each epoch."""

    epoch: int = 0
    best_dice: float = -1.0
    best_epoch: int = 0
    seconds: list[float] = field(default_factory=list)
    skipped_steps: int = 0
    skipped_in_a_row: int = 0
    so_far: EpochSoFar = field(default_factory=EpochSoFar)


class Objective(nn.Module):
    """Model and loss in one forward pass, so that the processes see every parameter's use in it."""

    def __init__(self, model: nn.Module, loss: SegmentationLoss, reg_multiplier: float) -> None:
        super().__init__()
        self.model, self.loss, self.reg_multiplier = model, loss, reg_multiplier

    def forward(
        self, images: torch.Tensor, labels: list[str], masks: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Logits (B, S, S), and the loss parts with their sum "total", in float32 whatever the model's precision."""
        regularization = None
        if self.reg_multiplier:  # first, so that its gradients come last, when the activations are gone
            with torch.autocast(images.device.type, enabled=False):
                regularization = adapters.regularization_loss(self.model)
        logits = self.model(images, labels)
        parts = self.loss.parts(logits, masks)
        if regularization is not None:
            parts["regularization"] = regularization
            parts["total"] = parts["total"] + self.reg_multiplier * regularization
        return logits, parts


@dataclass
class Run:
    """Everything that one training run holds."""

    model: nn.Module
    config: Config
    folder: Path
    processes: Processes
    stop: StopRequests
    save: Callable[[Path, int], None]
    train_set: GeneralDataset
    val_set: GeneralDataset
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        training = self.config.training
        if self.processes.count > 1 and training.sync_batch_norm:
            sync_batch_norm(self.model)
        if training.gradient_checkpointing:
            checkpoint_blocks(self.model)
        if training.compile:
            compile_encoder(self.model)
        self.average = WeightAverage(self.model, training.ema_decay) if training.ema_decay else None
        loss = SegmentationLoss(training.loss, training.focal_alpha, training.focal_gamma, training.focal_on)
        objective = Objective(self.model, loss, training.reg_multiplier)
        optimizer = build_optimizer(self.model, training)
        self.objective, self.optimizer = self.processes.prepare(objective, optimizer)

    @property
    def states(self) -> StateFolder:
        """last/: all that resuming needs."""
        return state_folder(self.folder)

    @property
    def best_file(self) -> Path:
        """The weights of the epoch with the best validation Dice."""
        return self.folder / BEST_FILE

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """A block in which the model has the weights to evaluate and keep: the average's, where there is one."""
        if self.average is None:
            yield
        else:
            with self.average.applied():
                yield


def state_folder(folder: Path) -> StateFolder:
    """The states in a run's folder."""
    return StateFolder(folder / LAST_FOLDER)


def save_state(run: Run) -> None:
    """Writes the run's state to last/, in the main process; all must take part."""
    generators = run.processes.gather([random_state()])
    if not run.processes.is_main:
        return
    scaler = run.processes.accelerator.scaler
    run.states.save(
        {
            "model": weights_file.trained_state(run.model, everything=run.config.pretrained_path is None),
            "optimizer": run.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler else None,
            "average": run.average.state_dict() if run.average else None,
            "progress": asdict(run.progress),
            "random": generators,
            "config": run.config.to_yaml(),
            "base_sha256": run.model.base_sha256,
        }
    )


def load_state(run: Run) -> None:
    """Goes on from the newest undamaged state in last/.

    Raises:
        UserError: there is none, or it belongs to another config.
    """
    state, path = _chosen_state(run)
    check_config(path, state["config"], run.config, run.folder)
    if state["base_sha256"] != run.model.base_sha256:
        raise UserError(f"{path}: was trained on other base weights than {run.config.pretrained_path} is now")
    weights_file.load_trained_state(run.model, state["model"], everything=run.config.pretrained_path is None)
    run.optimizer.load_state_dict(state["optimizer"])
    if state["scaler"] is not None:
        run.processes.accelerator.scaler.load_state_dict(state["scaler"])
    if run.average is not None:
        run.average.load_state_dict(state["average"])
    progress = dict(state["progress"])
    run.progress = Progress(**{**progress, "so_far": EpochSoFar(**progress["so_far"])})
    if len(state["random"]) != run.processes.count:
        log.warning(
            "%s: was saved by %d processes, resumed by %d: dropout will differ from an uninterrupted run's",
            path,
            len(state["random"]),
            run.processes.count,
        )
    if run.processes.index < len(state["random"]):
        set_random_state(state["random"][run.processes.index])
    log.info("%s: resumed after epoch %d, step %d", path, run.progress.epoch, run.progress.so_far.step)


def _chosen_state(run: Run) -> tuple[dict[str, Any], Path]:
    """The main process checks the files and chooses one, so that all go on from the same."""
    path = run.processes.on_main(run.states.newest)
    return run.states.read(path), path


def check_config(origin: Path, saved: str, config: Config, folder: Path) -> None:
    """Raises UserError, with the keys that differ, unless `saved` (YAML) is `config`."""
    before, now = (_flat(parse_yaml(text, str(origin))) for text in (saved, config.to_yaml()))
    keys = sorted({key for key in before | now if before.get(key) != now.get(key)})
    if keys:
        changes = [f"{key} was {_word(before.get(key))}, is {_word(now.get(key))}" for key in keys]
        raise UserError(
            f"{origin}: was trained with another config: {'; '.join(changes)}; resume with {folder / 'config.yaml'}"
        )


def _flat(values: dict[str, Any], path: tuple[str, ...] = ()) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        inner = (*path, key)
        flat.update(_flat(value, inner) if isinstance(value, dict) else {dotted(inner): value})
    return flat


def _word(value: Any) -> str:
    return "not set" if value is None else show(value)
