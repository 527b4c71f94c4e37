"""Saves a run's state to last/ and restores it from there."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from checkpointing import weights_file
from training.data_digest import check_data
from training.random_state import random_state, set_random_state
from training.run import EpochProgress, Progress, Run
from utils.config.differences import check_config
from utils.errors import UserError

log = logging.getLogger(__name__)


def save_state(run: Run) -> None:
    """Writes the run's state to last/, in the main process; all processes must call it."""
    generators = run.processes.gather([random_state()])
    if not run.processes.is_main:
        return
    scaler = run.processes.accelerator.scaler
    run.folder.states.save(
        {
            "model": weights_file.trained_state(run.model, everything=run.config.pretrained_path is None),
            "optimizer": run.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler else None,
            "average": run.average.state_dict() if run.average else None,
            "progress": asdict(run.progress),
            "random": generators,
            "config": run.config.to_yaml(),
            "base_sha256": run.model.base_sha256,
            "data": run.data,
        }
    )


def load_state(run: Run) -> None:
    """Restores the newest undamaged state in last/.

    Raises:
        UserError: there is none, or it belongs to another config or other data.
    """
    state, path = _chosen_state(run)
    more_epochs = check_config(path, state["config"], run.config, run.folder.config, longer=True)
    if state["base_sha256"] != run.model.base_sha256:
        raise UserError(f"{path}: was trained on other base weights than {run.config.pretrained_path} is now")
    run.processes.on_main(lambda: check_data(state.get("data"), run.data, run.config, path))
    weights_file.load_trained_state(run.model, state["model"], everything=run.config.pretrained_path is None)
    progress = dict(state["progress"])
    run.progress = Progress(**{**progress, "so_far": EpochProgress(**progress["so_far"])})
    if run.config.ft.rank_rule != "fixed":  # the model may have got the state's ranks, and with them other parameters
        run.start_optimizer()
    run.optimizer.load_state_dict(state["optimizer"])
    scaler = run.processes.accelerator.scaler
    if scaler is not None and state["scaler"] is not None:
        scaler.load_state_dict(state["scaler"])
    if run.average is not None:
        run.average.load_state_dict(state["average"])
    _check_best(run)
    if len(state["random"]) != run.processes.count:
        log.warning(
            "%s: was saved by %d processes, resumed by %d: dropout and drawn prompts will differ from an "
            "uninterrupted run's",
            path,
            len(state["random"]),
            run.processes.count,
        )
    if run.processes.index < len(state["random"]):
        set_random_state(state["random"][run.processes.index])
    if run.processes.is_main:
        run.folder.continue_with(run.config)
    log.info("%s: resumed after epoch %d, step %d", path, run.progress.epoch, run.progress.so_far.step)
    if more_epochs and run.config.training.schedular == "cosine":
        log.warning(
            "the cosine schedule of %d epochs goes on after epoch %d: a run of that many epochs from the start differs",
            run.config.training.num_epochs,
            run.progress.epoch,
        )


def _check_best(run: Run) -> None:
    """Forgets the best epoch if its weights are damaged. Raises: UserError if no epoch is left to be the best one."""

    def damage() -> str:
        try:
            weights_file.read_weights(run.folder.best_weights)
        except UserError as error:
            return str(error)
        return ""

    progress = run.progress
    problem = run.processes.on_main(damage) if progress.best_epoch else ""
    if problem and progress.epoch >= run.config.training.num_epochs:
        raise UserError(f"{problem}; all epochs are trained, so put it back, or train anew with another --save_path")
    if problem:
        log.warning("%s; the best of the epochs to come is taken", problem)
        progress.best_dice, progress.best_epoch = -1.0, 0


def _chosen_state(run: Run) -> tuple[dict[str, Any], Path]:
    """The main process checks the files and chooses one, so that all processes restore the same."""
    path = run.processes.on_main(run.folder.states.newest)
    return run.folder.states.read(path), path
