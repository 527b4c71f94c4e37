"""The training loop: epochs, validation, the best and the last weights, stopping and resuming."""

import logging
import time
from datetime import timedelta
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from datasets.batches import StepBatches
from evaluation.overlays import small_overlay
from test import mean_dice
from training.batch_norm import batch_norm_buffers
from training.optimizer import learning_rate_factor
from training.pruning import cut_ranks, is_before_cut, parameter_budget
from training.resume import load_state, save_state
from training.run import EpochProgress, Progress, Run
from training.run_log import NoLog, RunLog
from training.signals import StoppedError, start_workers
from training.step import StepResult, train_step
from utils.config.differences import flat
from utils.config.options import EPOCH_CHOSEN_ON
from utils.errors import UserError

log = logging.getLogger(__name__)

# The fp16 scaler halves its scale at each: from 2^16 that many bring it below what any gradient in range needs.
MAX_SKIPPED_IN_A_ROW = 40
PICTURES = 3  # validation samples that the trackers show


def fit(run: Run, resume: bool = False) -> Progress:
    """Trains to the last epoch of the config and returns where the run stands.

    Raises:
        ConfigError: ft.rank_budget is below what is trained beside the adapters.
        UserError: the loss is not finite (the message says step and images; the last good state stays).
        StoppedError: a signal came; the step in flight was finished, and last/ holds it.
    """
    training = run.config.training
    parameter_budget(run.model, run.config.ft.rank_budget)
    batches = step_batches(run)
    if run.processes.is_main and training.warmup_steps >= (steps := batches.steps * training.num_epochs):
        log.warning("training.warmup_steps = %d, but all epochs have %d steps", training.warmup_steps, steps)
    loader = DataLoader(
        run.train_set,
        batch_sampler=batches,
        num_workers=run.config.require_data().num_workers,
        pin_memory=run.processes.device.type == "cuda",
        generator=torch.Generator(),  # its own: an epoch that is resumed halfway draws nothing from the global one
    )
    if resume:
        load_state(run)
    elif run.processes.is_main:
        run.folder.states.clear()
    log_of = partial(RunLog, run.folder.path, resume, training.trackers, flat(run.config))
    with log_of() if run.processes.is_main else NoLog() as run_log:
        run_log.truncate_after(run.progress.epoch)
        if not resume:
            save_state(run)
        while run.progress.epoch < training.num_epochs and not out_of_patience(run):
            started = time.perf_counter()
            record = train_epoch(run, loader, batches)
            cut_ranks(run)
            record |= finish_epoch(run)
            # The line first: a run that is killed before its state is saved drops the line when it resumes.
            run_log.epoch({"epoch": run.progress.epoch, **record})
            run_log.pictures(run.pictures, run.progress.epoch)
            save_state(run)
            _log_epoch(run, record, time.perf_counter() - started)
            if run.processes.any(run.stop.requested):
                run.processes.wait()  # until the state is saved
                raise StoppedError(f"stopped by a signal after epoch {run.progress.epoch}; resume with --resume")
    if out_of_patience(run):
        log.info("training ends: no better epoch since epoch %d (training.patience)", run.progress.best_epoch)
    return run.progress


def out_of_patience(run: Run) -> bool:
    """Whether the last `training.patience` epochs, of which the last was validated, brought no better one."""
    progress, training = run.progress, run.config.training
    if training.patience is None or progress.so_far.step or progress.epoch % training.val_every or is_before_cut(run):
        return False
    return progress.best_epoch > 0 and progress.epoch - progress.best_epoch >= training.patience


def step_batches(run: Run) -> StepBatches:
    """The micro-batches of this process."""
    training, processes = run.config.training, run.processes
    chosen = training.label_weights
    weights = [chosen.get(sample.label_name, 1.0) for sample in run.train_set.samples] if chosen else None
    return StepBatches(
        run.train_set,
        training.batch_size,
        run.config.seed,
        training.accumulate_steps,
        processes.index,
        processes.count,
        weights,
    )


def train_epoch(run: Run, loader: DataLoader, batches: StepBatches) -> dict[str, Any]:
    """Takes the remaining steps of an epoch; returns the means of its losses and Dice, and the last learning rate.

    Raises: as `fit`.
    """
    training, progress = run.config.training, run.progress.so_far
    epoch = run.progress.epoch + 1
    batches.set_position(epoch, progress.step)
    run.model.train()
    seconds_before, started = progress.seconds, time.perf_counter()
    bar = tqdm(
        total=batches.steps,
        initial=progress.step,
        desc=f"epoch {epoch}/{training.num_epochs}",
        unit="step",
        leave=False,
        disable=None if run.processes.is_main else True,
    )
    with bar:
        micro_batches = start_workers(loader)
        while progress.step < batches.steps:
            step = (epoch - 1) * batches.steps + progress.step
            progress.rate = training.lr * learning_rate_factor(training, step, batches.steps)
            for group in run.optimizer.param_groups:
                group["lr"] = progress.rate
            result = train_step(run, micro_batches, batches)
            _count(run, result, batches.step_samples(progress.step))
            progress.step += 1
            progress.seconds = seconds_before + time.perf_counter() - started
            bar.update()
            if progress.samples:
                means = progress.means
                bar.set_postfix(loss=f"{means['total']:.4f}", dice=f"{means['dice_score']:.3f}")
            if result.stop:
                raise _saved_stop(run, f"in epoch {epoch}, step {progress.step}")
    if not progress.samples:  # the fp16 scaler skipped every step, as it may while it looks for its scale
        return {"loss": {"total": None}, "train": {"dice": None}, "lr": progress.rate}
    losses = progress.means
    train_dice = losses.pop("dice_score")
    return {"loss": losses, "train": {"dice": train_dice}, "lr": progress.rate}


def _count(run: Run, result: StepResult, samples: int) -> None:
    """Adds a step to the epoch's sums, or to the skipped steps. Raises: UserError after too many of those."""
    progress, epoch = run.progress, run.progress.so_far
    if result.skipped or result.non_finite is not None:
        progress.skipped_steps += 1
        progress.skipped_in_a_row += 1
        epoch.skipped_steps += 1
        if progress.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise UserError(
                f"epoch {progress.epoch + 1}, step {epoch.step + 1}: fp16 skipped {MAX_SKIPPED_IN_A_ROW} steps in a "
                f"row; set training.precision to bf16 or fp32 ({run.folder.states.folder} holds the last good epoch)"
            )
        return
    progress.skipped_in_a_row = 0
    epoch.samples += samples
    for key, value in result.values.items():
        epoch.sums[key] = epoch.sums.get(key, 0.0) + value * samples


def finish_epoch(run: Run) -> dict[str, Any]:
    """Validates, keeps the best weights, and counts the epoch as complete; returns its part of the record."""
    progress, training = run.progress, run.config.training
    epoch, finished = progress.epoch + 1, progress.so_far
    run.pictures.clear()
    record: dict[str, Any] = {
        "skipped_steps": finished.skipped_steps,
        "precision": run.processes.precision,
        "processes": run.processes.count,
        "seconds": finished.seconds,
    }
    if epoch % training.val_every == 0 or epoch == training.num_epochs:
        dice = _validate_or_stop(run)
        record["val"] = {"dice": dice}
        if dice <= progress.best_dice:
            run.pictures.clear()
        else:
            progress.best_dice, progress.best_epoch = dice, epoch
            if run.processes.is_main:
                with run.averaged_weights():
                    run.save(run.folder.best_weights, epoch)
    progress.epoch = epoch
    progress.seconds.append(finished.seconds)
    progress.so_far = EpochProgress()
    return record


def validate(run: Run) -> float:
    """Mean Dice on the validation samples, at the model's image size, in the training's precision."""
    workers = run.config.require_data().num_workers
    batch_size = max(1, run.config.training.batch_size // run.processes.count)
    with run.processes.accelerator.autocast():
        device, keep = run.processes.device, partial(_keep_picture, run) if run.config.training.trackers else None
        encode = run.embeddings.encoded if run.embeddings else None
        return mean_dice(
            run.model, run.val_set, device, batch_size, workers, run.processes, run.stop, encode=encode, on_logits=keep
        )


def _keep_picture(run: Run, index: int, logits: Tensor, mask: Tensor) -> None:
    """Draws one of the first validation samples, for the trackers."""
    if index < PICTURES:
        sample, image = run.val_set.samples[index], run.val_set.native_image(index)
        name = f"val/{sample.name}/{sample.label_name}"
        run.pictures[name] = small_overlay(image, (mask > 0).numpy(), (logits > 0).numpy())


def _validate_or_stop(run: Run) -> float:
    run.processes.copy_from_main(batch_norm_buffers(run.model))  # they differ where BatchNorm is not synchronized
    try:
        with run.averaged_weights():
            return validate(run)
    except StoppedError:  # outside of the block the model has its own weights again
        raise _saved_stop(run, f"in the validation of epoch {run.progress.epoch + 1}") from None


def _saved_stop(run: Run, where: str) -> StoppedError:
    """Saves the state; all processes call this, and none ends before it is saved."""
    save_state(run)
    run.processes.wait()
    return StoppedError(f"stopped by a signal {where}; resume with --resume")


def _log_epoch(run: Run, record: dict[str, Any], seconds: float) -> None:
    progress, training = run.progress, run.config.training
    left = seconds * (training.num_epochs - progress.epoch)
    of_images = "val Dice" if (split := run.config.require_data().val) == "val" else f"Dice of {EPOCH_CHOSEN_ON[split]}"
    val = f"{of_images} {record['val']['dice']:.4f} (best {progress.best_dice:.4f}), " if "val" in record else ""
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
