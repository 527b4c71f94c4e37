"""Scores weights files on a split of a dataset: `main.py test`."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from datasets.data import GeneralDataset
from datasets.split import read_rows
from evaluation.results import CheckpointResults, Scores, write_per_image, write_results
from evaluation.threshold import Threshold
from experiments.result_metadata import result_metadata
from experiments.scoring import native_logits_of, score_dataset, threshold_fields
from model import as_predictor, load_trained
from networks.base import SegmentationModel
from networks.prompted import PromptedModel
from prediction.ensemble import average
from prediction.tiles import TILE_OVERLAP, check_overlap
from training.run_folder import RunFolder
from training.run_weights import run_of
from utils.config import Config
from utils.config.evaluation import EvaluationConfig
from utils.config.options import MetricName
from utils.config.schema import DataConfig
from utils.errors import UserError
from utils.files import find_path

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PredictionOptions:
    """How masks are predicted: as the options of the same names of `main.py predict` and `test`."""

    tile: bool = False
    flips: bool | None = None  # None: the checkpoint's
    threshold: Threshold | None = None  # None: the checkpoint's
    tile_overlap: float | None = None
    prompt: str | None = None  # None: the checkpoint's
    clicks: int | None = None

    @property
    def used(self) -> dict[str, Any]:
        """The options that are given, for results.json."""
        chosen = (self.threshold.high, self.threshold.low) if self.threshold else (None, None)
        overlap = self.tile_overlap if self.tile_overlap != TILE_OVERLAP else None
        used: dict[str, Any] = {"tile": self.tile or None, "tile_overlap": overlap, "flips": self.flips}
        used |= {"threshold": chosen[0], "low": chosen[1], "prompt": self.prompt, "clicks": self.clicks}
        return {key: value for key, value in used.items() if value is not None}

    @property
    def suffix(self) -> str:
        """The same for a folder's name: "_tile_no_flips_threshold_0.4", or ""."""

        def word(key: str, value: Any) -> str:
            if isinstance(value, bool):
                return f"_{key}" if value else f"_no_{key}"
            return f"_{key}_{value:g}" if isinstance(value, float) else f"_{key}_{value}"

        return "".join(word(key, value) for key, value in self.used.items())

    def replacing(self, settings: EvaluationConfig) -> EvaluationConfig:
        """The settings with the threshold and the mirror images that are given."""
        if self.threshold:
            settings = self.threshold.replacing(settings)
        return (
            settings if self.flips is None else settings.model_copy(update={"tta": "flips" if self.flips else "none"})
        )


def evaluate_checkpoint(
    path: Path,
    device: torch.device,
    split: str,
    data: Config | None = None,
    pretrained_path: Path | None = None,
    options: PredictionOptions = PredictionOptions(),
    others: Sequence[Path] = (),
    metrics: Sequence[MetricName] | None = None,
) -> CheckpointResults:
    """Evaluates a weights file on a split of its own dataset, or of `data`'s; with `others`, their mean probability.

    `metrics` are computed beside Dice and HD95, by default those of the training.

    Writes results.json, per_image.csv, overlays/ and predictions/ to <weights>_<dataset>_<split>/ beside it, with the
    options, the set's own intensity window, and a hash of `others` in the folder's name.
    """
    model, config = _load(path, pretrained_path, data)
    if not others and options.flips == config.evaluation.flips:
        options = replace(options, flips=None)
    evaluation = options.replacing(config.evaluation)
    if metrics:
        evaluation = evaluation.model_copy(update={"metrics": list(metrics)})
    config = config.model_copy(update={"evaluation": evaluation})
    _prompt_by(model, config, path, options, alone=not others)
    dataset = GeneralDataset(config, split, train=False)
    if split == "test":
        _refuse_training_images((path, *others), dataset, config)
    counted = result_metadata(config, model, split, path)
    native_logits = None
    if others or options.tile or "tile_overlap" in options.used:
        members = [
            as_predictor(model, config, device),
            *(as_predictor(*_load(other, pretrained_path, data), device) for other in others),
        ]
        predictor = average(members, [str(p) for p in (path, *others)], options.tile_overlap)
        check_overlap(options.tile_overlap, options.tile or predictor.sees_windows)
        native_logits = native_logits_of(predictor, dataset, options.tile, options.flips)
    folder = RunFolder(results_folder(path, config.require_data(), split, options, data, others))
    folder.path.mkdir(parents=True, exist_ok=True)
    scores = score_dataset(model.to(device), dataset, config, device, folder, None, native_logits)
    used: dict[str, Any] = {
        "prediction": options.used | own_window(data),
        "averaged": [str(p) for p in (path, *others)] if others else [],
    }
    results = CheckpointResults(**counted, **used, **dict(Scores.of(scores)), **threshold_fields(config.evaluation))
    write_per_image(folder.path, {path.stem: scores})
    write_results(folder.path, results)
    log.info("written: %s", folder.path)
    return results


def results_folder(
    path: Path,
    dataset: DataConfig,
    split: str,
    options: PredictionOptions = PredictionOptions(),
    data: Config | None = None,
    others: Sequence[Path] = (),
) -> Path:
    """The folder that `evaluate_checkpoint` writes to."""
    window = "".join(f"_{key}_{value:g}" for key, value in own_window(data).items() if value is not None)
    name = f"{path.stem}_{dataset.name}_{split}{options.suffix}{window}"
    if others:  # other checkpoints get another folder
        digest = hashlib.sha256("\n".join(sorted(str(other.resolve()) for other in others)).encode()).hexdigest()
        name += f"_mean_of_{len(others) + 1}_{digest[:8]}"
    return path.parent / name


def own_window(data: Config | None) -> dict[str, float | None]:
    """The intensity window where a data config sets one: it belongs to the images, not to the model."""
    if data is None:
        return {}
    window, own = {"a_min", "a_max"}, data.data_transforms
    return own.model_dump(include=window) if window & own.model_fields_set else {}


def _load(path: Path, pretrained_path: Path | None, data: Config | None) -> tuple[SegmentationModel, Config]:
    """A trained model and its config, with the dataset of `data`, where given, in place of its own."""
    model, config = load_trained(path, pretrained_path)
    if data is None:
        return model, config
    transforms = config.data_transforms.model_copy(update=own_window(data))
    return model, config.model_copy(update={"data": data.require_data(), "data_transforms": transforms})


def _refuse_training_images(paths: Sequence[Path], dataset: GeneralDataset, config: Config) -> None:
    """Raises UserError where a model was trained on an image to be tested, by the split that its run recorded."""
    tested = {sample.name for sample in dataset.samples}
    root = config.require_data().root_path.resolve()
    for path in paths:
        run = run_of(path)
        if run is None or not run.config.is_file() or not run.data_split.is_file():
            continue
        own = Config.from_resolved(run.config.read_text(encoding="utf-8"), str(run.config))
        if own.strategy == "none" or find_path(own.require_data().root_path, run.path).resolve() != root:
            continue
        if seen := sorted(tested & {row.image for row in read_rows(run.data_split) if row.split == "train"}):
            raise UserError(
                f"{path}: was trained on {len(seen)} of these {len(tested)} test images, such as {seen[0]}, says "
                f"{run.data_split}; test it on its own test images, or give --split train for scores of training images"
            )


def _prompt_by(model: SegmentationModel, config: Config, path: Path, options: PredictionOptions, alone: bool) -> None:
    """Sets the prompt. Raises UserError where the model or the other options do not go with it."""
    given, prompt = options.prompt or options.clicks, options.prompt or model.prompt
    if given and not isinstance(model, PromptedModel):
        raise UserError(f"{path}: is a {config.arch}, which takes no prompts; leave out --prompt and --clicks")
    if not isinstance(model, PromptedModel):
        return
    if prompt in ("box", "points", "box_oracle"):
        if config.data_transforms.scale == "native":
            raise UserError(f"{path}: sees windows (data_transforms.scale: native), which are prompted by text alone")
        if config.evaluation.flips:
            raise UserError(f"{path}: averages mirror images (evaluation.tta: flips), for text alone; give --tta none")
        if options.tile or not alone:
            raise UserError(
                f"{path}: its prompt is {prompt}, which is for one checkpoint and whole images; leave out --tile and "
                "other checkpoints, or give --prompt text"
            )
    if prompt != "points" and options.clicks:
        raise UserError(f"{path}: --clicks: is for --prompt points, and the prompt is {prompt}")
    if given:
        model.prompt_by(prompt, options.clicks)
