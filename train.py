"""The training loop: epochs, validation, the best and the last weights, resume."""

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

import adapters
import checkpoint
from datasets.data import EpochSampler, GeneralDataset
from test import mean_dice
from utils.config import Config, TrainingConfig
from utils.errors import UserError
from utils.files import atomic_path
from utils.losses import SegmentationLoss
from utils.metrics import batch_dice
from utils.run_log import RunLog
from utils.tensor_files import read_tensor_file

log = logging.getLogger(__name__)

BEST_FILE = "best_val.safetensors"


class StoppedError(UserError):
    """A signal ended the run; last/ holds the last complete epoch (exit status 3)."""

    exit_code = 3


@dataclass
class Progress:
    """Where a run stands: complete epochs, the best validation Dice and its epoch, and seconds of each epoch."""

    epoch: int = 0
    best_dice: float = -1.0
    best_epoch: int = 0
    seconds: list[float] = field(default_factory=list)


@dataclass
class Run:
    """Everything that one training run holds."""

    model: nn.Module
    config: Config
    device: torch.device
    folder: Path
    save: Callable[[Path, int], None]
    train_set: GeneralDataset
    val_set: GeneralDataset
    optimizer: torch.optim.Optimizer = field(init=False)
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        self.optimizer = build_optimizer(self.model, self.config.training)

    @property
    def resume_file(self) -> Path:
        """All that resuming needs: weights, optimizer, progress, random state."""
        return resume_file(self.folder)

    @property
    def best_file(self) -> Path:
        """The weights of the epoch with the best validation Dice."""
        return self.folder / BEST_FILE


def resume_file(folder: Path) -> Path:
    """Where a run's folder keeps all that resuming needs."""
    return folder / "last" / "state.pth"


def check_resumable(folder: Path) -> None:
    """Raises UserError where a folder holds nothing to resume."""
    if not resume_file(folder).is_file():
        raise UserError(f"{resume_file(folder)}: nothing to resume; start without --resume")


def build_optimizer(model: nn.Module, training: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW or SGD over every trainable parameter, in one group."""
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


def fit(run: Run, resume: bool = False) -> Progress:
    """Trains to the last epoch of the config and returns where the run stands.

    Raises:
        UserError: the loss is not finite (the message says step and images; the last good checkpoint stays).
        StoppedError: a signal came; the step in flight was finished and last/ holds the last complete epoch.
    """
    training = run.config.training
    if resume:
        load_state(run)
    loss = SegmentationLoss(training.loss, training.focal_alpha, training.focal_gamma, training.focal_on)
    sampler = EpochSampler(run.train_set, run.config.seed)
    loader = DataLoader(
        run.train_set,
        training.batch_size,
        sampler=sampler,
        num_workers=run.config.require_data().num_workers,
        pin_memory=run.device.type == "cuda",
    )
    with RunLog(run.folder, resume) as run_log, stop_requests() as stop_requested:
        run_log.truncate_after(run.progress.epoch)
        if not resume:
            save_state(run)
        while run.progress.epoch < training.num_epochs:
            epoch = run.progress.epoch + 1
            started = time.perf_counter()
            sampler.set_epoch(epoch)
            record = train_epoch(run, loader, loss, epoch, stop_requested)
            seconds = time.perf_counter() - started
            validated = epoch % training.val_every == 0 or epoch == training.num_epochs
            if validated:
                record["val"] = {"dice": validate(run)}
            run.progress.epoch = epoch
            run.progress.seconds.append(seconds)
            if validated and record["val"]["dice"] > run.progress.best_dice:
                run.progress.best_dice, run.progress.best_epoch = record["val"]["dice"], epoch
                run.save(run.best_file, epoch)
            # The line first: a run that is killed in between writes it again, and resuming drops the first one.
            run_log.epoch({"epoch": epoch, **record, "seconds": seconds})
            save_state(run)
            _log_epoch(run, record, time.perf_counter() - started)
            if stop_requested():
                raise StoppedError(f"stopped by a signal after epoch {epoch}; go on with --resume")
    return run.progress


def train_epoch(
    run: Run, loader: DataLoader, loss: SegmentationLoss, epoch: int, stop_requested: Callable[[], bool]
) -> dict[str, Any]:
    """One pass over the training samples; returns the means of the loss parts and of the Dice, and the last rate."""
    training = run.config.training
    run.model.train()
    sums: dict[str, float] = {}
    samples = 0
    bar = tqdm(loader, desc=f"epoch {epoch}/{training.num_epochs}", unit="step", leave=False, disable=None)
    for i, batch in enumerate(bar):
        step = (epoch - 1) * len(loader) + i
        rate = training.lr * learning_rate_factor(training, step, len(loader))
        for group in run.optimizer.param_groups:
            group["lr"] = rate
        values = train_step(run, batch, loss)
        if not math.isfinite(values["total"]):
            raise UserError(
                f"epoch {epoch}, step {i + 1}: the loss or its gradient is {values['total']} "
                f"on {', '.join(batch['name'])}; "
                f"lower training.lr or look at these images ({run.resume_file} holds the last good epoch)"
            )
        count = len(batch["name"])
        samples += count
        for key, value in values.items():
            sums[key] = sums.get(key, 0.0) + value * count
        bar.set_postfix(loss=f"{sums['total'] / samples:.4f}", dice=f"{sums['dice_score'] / samples:.3f}")
        if stop_requested():
            raise StoppedError(f"stopped by a signal in epoch {epoch}; go on with --resume")
    means = {key: value / samples for key, value in sums.items()}
    train_dice = means.pop("dice_score")
    return {"loss": means, "train": {"dice": train_dice}, "lr": rate}


def train_step(run: Run, batch: dict[str, Any], loss: SegmentationLoss) -> dict[str, float]:
    """Forward, backward, and a step unless the loss or its gradient is not finite; returns the loss parts and the Dice.

    Where the gradient is not finite, "total" is its norm.
    """
    training = run.config.training
    images = batch["image"].to(run.device, non_blocking=True)
    masks = batch["mask"].to(run.device, non_blocking=True)
    logits = run.model(images, batch["label"])
    parts = loss.parts(logits, masks)
    if training.reg_multiplier:
        parts["regularization"] = adapters.regularization_loss(run.model)
        parts["total"] = parts["total"] + training.reg_multiplier * parts["regularization"]
    values = {key: float(value.detach()) for key, value in parts.items()}
    values["dice_score"] = float(batch_dice(logits.detach() > 0, masks > 0.5).mean())
    if math.isfinite(values["total"]):
        run.optimizer.zero_grad(set_to_none=True)
        parts["total"].backward()
        trained = [p for p in run.model.parameters() if p.grad is not None]
        norm = float(nn.utils.clip_grad_norm_(trained, training.clip_grad_norm or math.inf))
        if not math.isfinite(norm):
            return {**values, "total": norm}
        run.optimizer.step()
    return values


def validate(run: Run) -> float:
    """Mean Dice on the validation samples, at the model's image size."""
    workers = run.config.require_data().num_workers
    return mean_dice(run.model, run.val_set, run.device, run.config.training.batch_size, workers)


def save_state(run: Run) -> None:
    """Writes last/, from which `fit(resume=True)` goes on."""
    state = {
        "model": checkpoint.trained_state(run.model, everything=run.config.pretrained_path is None),
        "optimizer": run.optimizer.state_dict(),
        "progress": vars(run.progress),
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all() if run.device.type == "cuda" else [],
        "config": run.config.to_yaml(),
        "base_sha256": run.model.base_sha256,
    }
    with atomic_path(run.resume_file) as temporary:
        torch.save(state, temporary)


def load_state(run: Run) -> None:
    """Reads last/ back.

    Raises:
        UserError: there is none, or it belongs to another config.
    """
    check_resumable(run.folder)
    state, _ = read_tensor_file(run.resume_file)
    if state["config"] != run.config.to_yaml():
        raise UserError(f"{run.resume_file}: was trained with another config; resume with {run.folder / 'config.yaml'}")
    if state["base_sha256"] != run.model.base_sha256:
        raise UserError(
            f"{run.resume_file}: was trained on other base weights than {run.config.pretrained_path} is now"
        )
    checkpoint.load_trained_state(run.model, state["model"], everything=run.config.pretrained_path is None)
    run.optimizer.load_state_dict(state["optimizer"])
    run.progress = Progress(**state["progress"])
    torch.set_rng_state(state["rng"])
    if state["cuda_rng"]:
        torch.cuda.set_rng_state_all(state["cuda_rng"])


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether SIGTERM, SIGUSR1 or Ctrl-C came; a second one acts as it always does."""
    received: list[int] = []
    previous: dict[int, Any] = {}

    def note(number: int, _: object) -> None:
        received.append(number)
        for each, handler in previous.items():
            signal.signal(each, handler)

    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        previous[number] = signal.signal(number, note)
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _log_epoch(run: Run, record: dict[str, Any], seconds: float) -> None:
    progress, training = run.progress, run.config.training
    left = seconds * (training.num_epochs - progress.epoch)
    val = f"val Dice {record['val']['dice']:.4f} (best {progress.best_dice:.4f}), " if "val" in record else ""
    log.info(
        "epoch %d/%d: loss %.4f, train Dice %.4f, %s%.1f s, about %s left",
        progress.epoch,
        training.num_epochs,
        record["loss"]["total"],
        record["train"]["dice"],
        val,
        seconds,
        timedelta(seconds=round(left)),
    )
