"""The training loop: epochs, validation, the best and the last weights, stopping and going on."""

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from datasets.batches import StepBatches
from evaluation.metrics import batch_dice
from test import mean_dice
from training.optimizer import learning_rate_factor
from training.run import EpochSoFar, Progress, Run, load_state, save_state
from training.run_log import NoLog, RunLog
from training.signals import StoppedError, start_workers
from training.synced_batch_norm import batch_left_out, batch_norm_buffers
from utils.errors import UserError

log = logging.getLogger(__name__)

# The fp16 scaler halves its scale at each: from 2^16 that many bring it below what any gradient in range needs.
MAX_SKIPPED_IN_A_ROW = 40


def fit(run: Run, resume: bool = False) -> Progress:
    """Trains to the last epoch of the config and returns where the run stands.

    Raises:
        UserError: the loss is not finite (the message says step and images; the last good state stays).
        StoppedError: a signal came; the step in flight was finished, and last/ holds it.
    """
    training = run.config.training
    batches = step_batches(run)
    loader = DataLoader(
        run.train_set,
        batch_sampler=batches,
        num_workers=run.config.require_data().num_workers,
        pin_memory=run.processes.device.type == "cuda",
        generator=torch.Generator(),  # its own: a pass that is taken up halfway draws nothing from the global one
    )
    if resume:
        load_state(run)
    elif run.processes.is_main:
        run.states.clear()
    with RunLog(run.folder, resume) if run.processes.is_main else NoLog() as run_log:
        run_log.truncate_after(run.progress.epoch)
        if not resume:
            save_state(run)
        while run.progress.epoch < training.num_epochs:
            started = time.perf_counter()
            record = train_epoch(run, loader, batches)
            record |= finish_epoch(run)
            # The line first: a run that is killed in between writes it again, and resuming drops the first one.
            run_log.epoch({"epoch": run.progress.epoch, **record})
            save_state(run)
            _log_epoch(run, record, time.perf_counter() - started)
            if run.processes.any(run.stop.requested):
                run.processes.wait()  # until the state is saved
                raise StoppedError(f"stopped by a signal after epoch {run.progress.epoch}; go on with --resume")
    return run.progress


def step_batches(run: Run) -> StepBatches:
    """The batches of this process."""
    training, processes = run.config.training, run.processes
    parts = training.accumulate_steps
    return StepBatches(run.train_set, training.batch_size, run.config.seed, parts, processes.index, processes.count)


def train_epoch(run: Run, loader: DataLoader, batches: StepBatches) -> dict[str, Any]:
    """The rest of an epoch's steps; returns the means of the loss parts and of the Dice over all of it, and the rate.

    Raises: as `fit`.
    """
    training, done = run.config.training, run.progress.so_far
    epoch = run.progress.epoch + 1
    batches.set_position(epoch, done.step)
    run.model.train()
    before, started = done.seconds, time.perf_counter()
    bar = tqdm(
        total=batches.steps,
        initial=done.step,
        desc=f"epoch {epoch}/{training.num_epochs}",
        unit="step",
        leave=False,
        disable=None if run.processes.is_main else True,
    )
    with bar:
        parts = start_workers(loader)
        while done.step < batches.steps:
            step = (epoch - 1) * batches.steps + done.step
            done.rate = training.lr * learning_rate_factor(training, step, batches.steps)
            for group in run.optimizer.param_groups:
                group["lr"] = done.rate
            result = train_step(run, parts, batches)
            _count(run, result, batches.step_samples(done.step))
            done.step += 1
            done.seconds = before + time.perf_counter() - started
            bar.update()
            if done.samples:
                means = {key: value / done.samples for key, value in done.sums.items()}
                bar.set_postfix(loss=f"{means['total']:.4f}", dice=f"{means['dice_score']:.3f}")
            if result.stop:
                raise _saved_stop(run, f"in epoch {epoch}, step {done.step}")
    if not done.samples:  # the fp16 scaler skipped them all, as it may while it looks for its scale
        return {"loss": {"total": None}, "train": {"dice": None}, "lr": done.rate}
    means = {key: value / done.samples for key, value in done.sums.items()}
    train_dice = means.pop("dice_score")
    return {"loss": means, "train": {"dice": train_dice}, "lr": done.rate}


@dataclass
class StepResult:
    """One step: means over its samples, and over all processes, of the loss parts and the Dice."""

    values: dict[str, float] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)  # of this process' images
    norm: float = 0.0
    skipped: bool = False
    stop: bool = False  # whether a signal has reached any process

    @property
    def trouble(self) -> float | None:
        """The loss or the gradient's norm, whichever is not finite."""
        return next((value for value in (self.values["total"], self.norm) if not math.isfinite(value)), None)


def train_step(run: Run, parts: Iterator[dict[str, Any]], batches: StepBatches) -> StepResult:
    """Forward and backward of each part of the next step, then the step, unless loss or gradient is not finite.

    In fp16 the scaler leaves such a step out, and tries the next with a smaller scale.

    Raises:
        UserError: fp32 or bf16 is not finite; the weights are as they were before the step.
    """
    accelerator, training = run.processes.accelerator, run.config.training
    result = StepResult()
    run.optimizer.zero_grad(set_to_none=True)
    for part in range(batches.parts):
        share = batches.share(run.progress.so_far.step, part)
        batch = next(parts)
        with accelerator.accumulate(run.objective), batch_left_out(run.model, share == 0):
            values = _forward_and_backward(run, batch, share)
        for key, value in values.items():
            result.values[key] = result.values.get(key, 0.0) + share * value
        result.names += batch["name"] if share else []
    trained = [p for p in run.model.parameters() if p.grad is not None]
    result.norm = float(accelerator.clip_grad_norm_(trained, training.clip_grad_norm or math.inf))
    # One exchange a step: the processes stop, and go on, together.
    stop, *means = run.processes.sum([float(run.stop.requested), *result.values.values()])
    result.stop = stop > 0
    result.values = dict(zip(result.values, means, strict=True))
    if result.trouble is not None and accelerator.scaler is None:
        raise _not_finite(run, result)
    run.optimizer.step()
    result.skipped = run.optimizer.step_was_skipped
    if run.average is not None and not result.skipped:
        run.average.update()
    return result


def _forward_and_backward(run: Run, batch: dict[str, Any], share: float) -> dict[str, float]:
    """The loss parts and the Dice of one batch; adds its gradients, weighted by its share of the step's samples."""
    device, accelerator = run.processes.device, run.processes.accelerator
    images = batch["image"].to(device, non_blocking=True)
    masks = batch["mask"].to(device, non_blocking=True)
    logits, parts = run.objective(images, batch["label"], masks)
    # Accelerate divides by the number of parts, and the processes' gradients are averaged.
    weight = share * accelerator.gradient_accumulation_steps * run.processes.count
    accelerator.backward(parts["total"] * weight if weight != 1 else parts["total"])
    values = {key: float(value.detach()) for key, value in parts.items()}
    values["dice_score"] = float(batch_dice(logits.detach() > 0, masks > 0.5).mean())
    return values


def _not_finite(run: Run, result: StepResult) -> UserError:
    done = run.progress
    names = ", ".join(run.processes.gather(result.names))
    return UserError(
        f"epoch {done.epoch + 1}, step {done.so_far.step + 1}: the loss or its gradient is {result.trouble} "
        f"on {names}; lower training.lr or look at these images ({run.states.folder} holds the last good epoch)"
    )


def _count(run: Run, result: StepResult, samples: int) -> None:
    """Takes a step into the epoch's sums, or among the skipped ones. Raises: UserError after too many of those."""
    progress, done = run.progress, run.progress.so_far
    if result.skipped or result.trouble is not None:
        progress.skipped_steps += 1
        progress.skipped_in_a_row += 1
        done.skipped_steps += 1
        if progress.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise UserError(
                f"epoch {progress.epoch + 1}, step {done.step + 1}: fp16 skipped {MAX_SKIPPED_IN_A_ROW} steps "
                f"in a row; set training.precision to bf16 or fp32 ({run.states.folder} holds the last good epoch)"
            )
        return
    progress.skipped_in_a_row = 0
    done.samples += samples
    for key, value in result.values.items():
        done.sums[key] = done.sums.get(key, 0.0) + value * samples


def finish_epoch(run: Run) -> dict[str, Any]:
    """Validates, keeps the best weights, and counts the epoch as complete; returns its part of the record."""
    progress, training = run.progress, run.config.training
    epoch, done = progress.epoch + 1, progress.so_far
    record: dict[str, Any] = {
        "skipped_steps": done.skipped_steps,
        "precision": run.processes.precision,
        "processes": run.processes.count,
        "seconds": done.seconds,
    }
    if epoch % training.val_every == 0 or epoch == training.num_epochs:
        dice = _validate_or_stop(run)
        record["val"] = {"dice": dice}
        if dice > progress.best_dice:
            progress.best_dice, progress.best_epoch = dice, epoch
            if run.processes.is_main:
                with run.averaged_weights():
                    run.save(run.best_file, epoch)
    progress.epoch = epoch
    progress.seconds.append(done.seconds)
    progress.so_far = EpochSoFar()
    return record


def validate(run: Run) -> float:
    """Mean Dice on the validation samples, at the model's image size, in the training's precision."""
    workers = run.config.require_data().num_workers
    batch_size = max(1, run.config.training.batch_size // run.processes.count)
    with run.processes.accelerator.autocast():
        return mean_dice(run.model, run.val_set, run.processes.device, batch_size, workers, run.processes, run.stop)


def _validate_or_stop(run: Run) -> float:
    run.processes.copy_from_main(batch_norm_buffers(run.model))  # they differ where BatchNorm is not synchronized
    try:
        with run.averaged_weights():
            return validate(run)
    except StoppedError:  # out of the block, the weights are themselves again
        raise _saved_stop(run, f"in the validation of epoch {run.progress.epoch + 1}") from None


def _saved_stop(run: Run, where: str) -> StoppedError:
    """Saves the state; all processes take part, and none ends before it is saved."""
    save_state(run)
    run.processes.wait()
    return StoppedError(f"stopped by a signal {where}; go on with --resume")


def _log_epoch(run: Run, record: dict[str, Any], seconds: float) -> None:
    progress, training = run.progress, run.config.training
    left = seconds * (training.num_epochs - progress.epoch)
    val = f"val Dice {record['val']['dice']:.4f} (best {progress.best_dice:.4f}), " if "val" in record else ""
    loss, dice = record["loss"]["total"], record["train"]["dice"]
    trained = "no step taken" if loss is None else f"loss {loss:.4f}, train Dice {dice:.4f}"
    skipped = f"{record['skipped_steps']} steps skipped, " if record["skipped_steps"] else ""
    log.info(
        "epoch %d/%d: %s, %s%s%.1f s, about %s left",
        progress.epoch,
        training.num_epochs,
        trained,
        val,
        skipped,
        seconds,
        timedelta(seconds=round(left)),
    )
