"""Scores a model on a dataset, with pictures."""

from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets.data import GeneralDataset
from datasets.io import read_image
from datasets.names import output_name
from evaluation.overlays import save_mask, save_overlay
from evaluation.results import ImageScore
from evaluation.threshold import Threshold
from model import predictor_of
from networks.base import SegmentationModel
from prediction.predictor import Predictor
from test import NativeLogits, evaluate
from training.processes import Processes
from training.run_folder import RunFolder
from utils.config import Config
from utils.config.evaluation import EvaluationConfig

OVERLAYS = 16  # images with a picture


def score_dataset(
    model: SegmentationModel,
    dataset: GeneralDataset,
    config: Config,
    device: torch.device,
    pictures: RunFolder | None = None,
    processes: Processes | None = None,
    native_logits: NativeLogits | None = None,
) -> list[ImageScore]:
    """Scores every sample of a dataset; writes overlays of the first ones and all masks to `pictures`, where given.

    The last two arguments are those of `test.evaluate`.
    """

    def draw(pictures: RunFolder, index: int, prediction: np.ndarray, truth: np.ndarray, score: ImageScore) -> None:
        name = output_name(score.name, score.label)
        save_mask(pictures.predictions / name, prediction)
        if index < OVERLAYS:
            words: dict[str, Any] = {"name": score.name, "label": score.label, "dice": score.native.dice}
            save_overlay(pictures.overlays / name, dataset.native_image(index), truth, prediction, **words)

    native_logits = native_logits or mirrored_logits(model, dataset, config, device)
    batch_size = max(1, config.training.batch_size // (processes.count if processes else 1))
    workers = config.require_data().num_workers
    on_prediction = partial(draw, pictures) if pictures else None
    return evaluate(
        model, dataset, device, batch_size, workers, on_prediction, processes, config.evaluation, native_logits
    )


def mirrored_logits(
    model: SegmentationModel, dataset: GeneralDataset, config: Config, device: torch.device
) -> NativeLogits | None:
    """The function that predicts a sample as the mean over mirror images, where the config wants that; else None."""
    if not config.evaluation.flips:
        return None
    return native_logits_of(predictor_of(model.eval(), config, device), dataset)


def native_logits_of(
    predictor: Predictor, dataset: GeneralDataset, tile: bool = False, flips: bool | None = None
) -> NativeLogits:
    """The function that predicts a sample as `main.py predict` does; an image's labels are predicted together."""
    labels = list(dict.fromkeys(sample.label_name for sample in dataset.samples))

    @lru_cache(maxsize=1)
    def of_image(path: Path) -> Tensor:
        return predictor.array_logits(read_image(path), labels, tile=tile, flips=flips)

    def of_sample(index: int) -> Tensor:
        sample = dataset.samples[index]
        return of_image(sample.image_path)[labels.index(sample.label_name)]

    return of_sample


def threshold_fields(settings: EvaluationConfig) -> dict[str, Any]:
    """The fields of `ThresholdedScores` beside the scores."""
    threshold = Threshold.of(settings)
    return {"threshold": threshold.high, "low": threshold.low}
