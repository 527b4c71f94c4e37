"""One step of the optimizer: the gradients of its micro-batches, then the update unless they are not finite."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from datasets.batches import StepBatches
from evaluation.metrics import batch_dice
from training.batch_norm import frozen_batch_norm
from training.pruning import shrink_ranks
from training.run import Run
from utils.errors import UserError


@dataclass
class StepResult:
    """One optimizer step: means of the losses and the Dice over its samples in all processes."""

    values: dict[str, float] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)  # of this process' images
    norm: float = 0.0
    skipped: bool = False
    stop: bool = False  # whether a signal has reached any process

    @property
    def non_finite(self) -> float | None:
        """The loss or the gradient's norm, whichever is not finite; None where both are."""
        return next((value for value in (self.values["total"], self.norm) if not math.isfinite(value)), None)


def train_step(run: Run, micro_batches: Iterator[dict[str, Any]], batches: StepBatches) -> StepResult:
    """Accumulates the gradients of the next step's micro-batches and takes the step, unless they are not finite.

    In fp16 the scaler skips such a step and tries the next with a smaller scale.

    Raises:
        UserError: not finite in fp32 or bf16; the weights are as they were before the step.
    """
    accelerator, training = run.processes.accelerator, run.config.training
    result = StepResult()
    run.optimizer.zero_grad(set_to_none=True)
    for micro_batch in range(batches.micro_batches):
        share = batches.share(run.progress.so_far.step, micro_batch)
        batch = next(micro_batches)
        with accelerator.accumulate(run.objective), frozen_batch_norm(run.model, share == 0):
            values = _forward_and_backward(run, batch, share)
        for key, value in values.items():
            result.values[key] = result.values.get(key, 0.0) + share * value
        result.names += batch["name"] if share else []
    trained = [p for p in run.model.parameters() if p.grad is not None]
    result.norm = float(accelerator.clip_grad_norm_(trained, training.clip_grad_norm or math.inf))
    # One all-reduce per step, so that all processes stop or continue together.
    stop, *means = run.processes.sum([float(run.stop.requested), *result.values.values()])
    result.stop = stop > 0
    result.values = dict(zip(result.values, means, strict=True))
    if result.non_finite is not None and accelerator.scaler is None:
        raise _non_finite_error(run, result)
    run.optimizer.step()
    result.skipped = accelerator.optimizer_step_was_skipped
    shrink_ranks(run, batches.steps)
    if run.average is not None and not result.skipped:
        run.average.update()
    return result


def _forward_and_backward(run: Run, batch: dict[str, Any], share: float) -> dict[str, float]:
    """Adds a micro-batch's gradients, weighted by its share of the step's samples; returns its losses and Dice."""
    device, accelerator = run.processes.device, run.processes.accelerator
    images = batch["image"].to(device, non_blocking=True)
    masks = batch["mask"].to(device, non_blocking=True)
    encoded = run.embeddings.encoded(images, batch["name"]) if run.embeddings else None
    logits, losses = run.objective(images, batch["label"], masks, encoded)
    # Accelerate divides by the number of micro-batches, and the processes' gradients are averaged.
    weight = share * accelerator.gradient_accumulation_steps * run.processes.count
    accelerator.backward(losses["total"] * weight if weight != 1 else losses["total"])
    values = {key: float(value.detach()) for key, value in losses.items()}
    values["dice_score"] = float(batch_dice(logits.detach() > 0, masks > 0.5).mean())
    return values


def _non_finite_error(run: Run, result: StepResult) -> UserError:
    progress = run.progress
    names = ", ".join(run.processes.gather(result.names))
    return UserError(
        f"epoch {progress.epoch + 1}, step {progress.so_far.step + 1}: the loss or its gradient is {result.non_finite} "
        f"on {names}; lower training.lr or look at these images ({run.folder.states.folder} holds the last good epoch)"
    )
