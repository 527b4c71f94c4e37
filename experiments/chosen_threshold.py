"""The threshold that a run chooses on its validation images, and keeps in its weights files."""

import logging
from pathlib import Path

from checkpointing.weights_file import WeightsFile, save_weights
from experiments.scoring import mirrored_logits
from networks.base import SegmentationModel
from test import choose_threshold
from training.run import Run
from utils.config import Config
from utils.config.options import EPOCH_CHOSEN_ON

log = logging.getLogger(__name__)


def chosen_config(config: Config, model: SegmentationModel, run: Run | None) -> Config:
    """The config; where it wants a threshold from the validation images, with the one that suits `model`."""
    if run is None or config.evaluation.threshold != "val":
        return config
    processes = run.processes
    batch_size = max(1, config.training.batch_size // processes.count)
    workers = config.require_data().num_workers
    mirrored = mirrored_logits(model, run.val_set, config, processes.device)
    chosen = choose_threshold(model, run.val_set, processes.device, batch_size, workers, processes, mirrored)
    images = EPOCH_CHOSEN_ON[config.require_data().val]
    log.info("threshold %g, chosen on %d samples of the %s", chosen, len(run.val_set), images)
    evaluation = config.evaluation.model_copy(update={"threshold": chosen})
    return config.model_copy(update={"evaluation": evaluation})


def keep_config(config: Config, weights: WeightsFile, path: Path) -> None:
    """Writes a weights file again if its config has another threshold."""
    if Config.from_resolved(weights.metadata["config"], str(path)).evaluation != config.evaluation:
        save_weights(path, weights.tensors, {**weights.metadata, "config": config.to_yaml()})
