"""SALT's `ft.rank_rule: prune` in a run: proximal steps after some optimizer steps, one cut, then plain training."""

import logging
import math
from dataclasses import asdict
from typing import Any

import adapters
from networks.base import SegmentationModel
from networks.strategies import parameter_counts
from training.optimizer import learning_rate_factor
from training.run import Run
from utils.config import Config
from utils.errors import ConfigError

log = logging.getLogger(__name__)

PROXIMAL_STEPS = 10  # at most
SHORTEST_PERIOD = 50  # steps of the optimizer between two of them


def is_before_cut(run: Run) -> bool:
    """Whether the ranks of this run are still to be cut."""
    return run.config.ft.rank_rule == "prune" and run.progress.cut is None


def cut_epoch(config: Config) -> int:
    """The epoch at whose end the ranks are cut, before its validation."""
    return max(1, math.ceil(config.ft.rank_cut_at * config.training.num_epochs))


def shrink_ranks(run: Run, steps_per_epoch: int) -> None:
    """Takes the proximal step that is due after an optimizer step; nothing after the cut.

    They are spread over the steps before the cut, the last of which has one. They are few because a random walk grows
    with the square root of its steps: the longer the period, the better noise is told from what is learned. And they
    need singular value decompositions.
    """
    if not is_before_cut(run):
        return
    training = run.config.training
    before_cut = cut_epoch(run.config) * steps_per_epoch
    period = max(math.ceil(before_cut / PROXIMAL_STEPS), SHORTEST_PERIOD)
    done = run.progress.epoch * steps_per_epoch + run.progress.so_far.step + 1
    if done % period == 0 or done == before_cut:
        since = range(done - (done % period or period), done)
        rates = [training.lr * learning_rate_factor(training, step, steps_per_epoch) for step in since]
        adapters.proximal_step(run.model, run.config.ft.rank_penalty * math.hypot(*rates))


def cut_ranks(run: Run) -> None:
    """Cuts the ranks if the epoch whose steps are done is the one to cut at; optimizer and moving average start anew.

    The best epoch is then one from here on: those before have more parameters.
    """
    epoch, ft = run.progress.epoch + 1, run.config.ft
    if not is_before_cut(run) or epoch < cut_epoch(run.config):
        return
    before = _ranks(run.model)
    layers = adapters.cut_ranks(run.model, parameter_budget(run.model, ft.rank_budget))
    total = {key: math.hypot(*(getattr(cut, key) for cut in layers.values())) for key in ("error", "bound", "norm")}
    counts = parameter_counts(run.model)
    run.progress.cut = {
        "epoch": epoch,
        "percent": counts["percent"],
        **total,
        "layers": {name: {**asdict(cut), "before": before[name]} for name, cut in layers.items()},
    }
    run.progress.best_dice, run.progress.best_epoch = -1.0, 0
    run.start_optimizer()
    if run.processes.is_main:
        log.info("epoch %d: %s", epoch, _words(run.progress.cut))
        if not any(cut.svd_rank or cut.r_lora for cut in layers.values()):
            log.warning(
                "epoch %d: no adapter is left; to keep some, lower ft.rank_penalty, or training.reg_multiplier, which "
                "holds at 0 what the loss pulls less",
                epoch,
            )


def parameter_budget(model: SegmentationModel, share: float | None) -> int | None:
    """How many parameters the adapters may have so that at most `share` of all are trained; None without a limit.

    Both are counted as in results.json (`parameter_counts`), the other trained parameters and CLIP's included.

    Raises: ConfigError where the other trained parameters alone are more.
    """
    if share is None:
        return None
    counts = parameter_counts(model)
    of_adapters = [p for p in adapters.adapter_parameters(model).values() if p.requires_grad]
    size = sum(parameter.numel() for parameter in of_adapters)
    others, rest = counts["trainable"] - size, counts["total"] - size
    if others > share * rest:
        raise ConfigError(
            f"ft.rank_budget = {share:g}: what is trained beside the adapters (norms, positions, prompt) is already "
            f"{others / rest:.4f} of all parameters; give a larger budget"
        )
    return int((share * rest - others) / (1 - share))


def _ranks(model: SegmentationModel) -> dict[str, dict[str, int]]:
    return {name: layer.ranks for name, layer in adapters.adapted_layers(model)}


def _words(cut: dict[str, Any]) -> str:
    layers = cut["layers"].values()
    kept = {key: sum(layer[key] for layer in layers) for key in ("svd_rank", "r_lora")}
    of = {key: sum(layer["before"][key] for layer in layers) for key in kept}
    norm = cut["norm"] or 1.0
    return (
        f"ranks cut: {kept['svd_rank']} of {of['svd_rank']} scaled singular values and {kept['r_lora']} of "
        f"{of['r_lora']} low-rank terms are left, {cut['percent']:.2f}% of all parameters are trained; the adapted "
        f"weights changed by {100 * cut['error'] / norm:.3f}% in the Frobenius norm (at most "
        f"{100 * cut['bound'] / norm:.3f}%, Eckart-Young)"
    )
