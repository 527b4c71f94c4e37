"""Scores a model on a split, with pictures; and a weights file as `main.py test` does."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adapters import METHODS, adapted_layers
from datasets.data import GeneralDataset
from datasets.io import read_image
from datasets.names import output_name
from evaluation.overlays import save_mask, save_overlay
from evaluation.results import (
    SCHEMA_VERSION,
    Checkpoint,
    CheckpointResults,
    ImageScore,
    Scores,
    write_per_image,
    write_results,
)
from evaluation.threshold import Threshold
from model import as_predictor, load_model, load_trained, predictor_of
from networks.base import SegmentationModel
from networks.prompted import PromptedModel
from networks.strategies import parameter_counts
from prediction.ensemble import average
from prediction.predictor import Predictor
from test import NativeLogits, evaluate
from training.processes import Processes
from training.run_folder import RunFolder
from utils.config import Config
from utils.config.adapters import FtConfig
from utils.config.evaluation import EvaluationConfig
from utils.config.options import BASELINE_ARCHS, EPOCH_CHOSEN_ON, MetricName
from utils.errors import UserError
from utils.files import sha256

OVERLAYS = 16  # images with a picture
# The keys of `ft` that set each rank; a method's results hold those of the ranks that it uses.
RANK_KEYS = {
    "svd_rank": {"svd_rank_linear", "svd_rank_conv2d", "svd_ratio", "rank_pattern"},
    "r_lora": {"r_lora", "rank_pattern"},
}
# Those of each rule that chooses ranks.
RULE_KEYS: dict[str, set[str]] = {
    "fixed": set(),
    "energy": {"rank_rule", "rank_energy"},
    "stable_rank": {"rank_rule"},
    "prune": {"rank_rule", "rank_budget"},
}


@dataclass(frozen=True)
class PredictionOptions:
    """How masks are predicted: as the options of the same names of `main.py predict` and `test`."""

    tile: bool = False
    flips: bool = False
    threshold: Threshold | None = None  # None: the checkpoint's
    tile_overlap: float | None = None
    prompt: str | None = None  # None: the checkpoint's
    clicks: int | None = None

    @property
    def changes_logits(self) -> bool:
        """Whether more than the threshold differs from the model's own prediction."""
        return self.tile or self.flips

    @property
    def used(self) -> dict[str, Any]:
        """The options that differ from the defaults, for results.json."""
        chosen = (self.threshold.high, self.threshold.low) if self.threshold else (None, None)
        used: dict[str, Any] = {"tile": self.tile, "flips": self.flips, "threshold": chosen[0], "low": chosen[1]}
        used |= {"prompt": self.prompt, "clicks": self.clicks}
        return {key: value for key, value in used.items() if value}

    @property
    def suffix(self) -> str:
        """The same for a folder's name: "_tile_flips_threshold_0.4", or ""."""
        texts = {key: f"{value:g}" if isinstance(value, float) else value for key, value in self.used.items()}
        return "".join(f"_{key}" + ("" if value is True else f"_{value}") for key, value in texts.items())


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

    if native_logits is None and config.evaluation.flips:
        native_logits = _native_logits(predictor_of(model.eval(), config, device), dataset, PredictionOptions())
    batch_size = max(1, config.training.batch_size // (processes.count if processes else 1))
    workers = config.require_data().num_workers
    on_prediction = partial(draw, pictures) if pictures else None
    return evaluate(
        model, dataset, device, batch_size, workers, on_prediction, processes, config.evaluation, native_logits
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
    options in the folder's name.
    """
    model, config = load_trained(path, pretrained_path)
    if data is not None:
        config = config.model_copy(update={"data": data.require_data()})
    if options.threshold:
        config = config.model_copy(update={"evaluation": options.threshold.replacing(config.evaluation)})
    if metrics:
        evaluation = config.evaluation.model_copy(update={"metrics": list(metrics)})
        config = config.model_copy(update={"evaluation": evaluation})
    if options.prompt or options.clicks:
        _prompt_by(model, config, path, options)
    dataset = GeneralDataset(config, split, train=False)
    counted = result_metadata(config, model, split, path)
    native_logits = None
    if others or options.changes_logits:
        members = [
            as_predictor(model, config, device),
            *(load_model(other, pretrained_path, device) for other in others),
        ]
        predictor = average(members, [str(p) for p in (path, *others)], options.tile_overlap)
        native_logits = _native_logits(predictor, dataset, options)
    name = f"{path.stem}_{config.require_data().name}_{split}{options.suffix}"
    folder = RunFolder(path.parent / (f"{name}_mean_of_{len(others) + 1}" if others else name))
    folder.path.mkdir(parents=True, exist_ok=True)
    scores = score_dataset(model.to(device), dataset, config, device, folder, None, native_logits)
    used: dict[str, Any] = {"prediction": options.used, "averaged": [str(p) for p in (path, *others)] if others else []}
    results = CheckpointResults(**counted, **used, **dict(Scores.of(scores)), **threshold_fields(config.evaluation))
    write_per_image(folder.path, {path.stem: scores})
    write_results(folder.path, results)
    return results


def _prompt_by(model: SegmentationModel, config: Config, path: Path, options: PredictionOptions) -> None:
    prompt = options.prompt or model.prompt
    if not isinstance(model, PromptedModel):
        raise UserError(f"{path}: is a {config.arch}, which takes no prompts; leave out --prompt and --clicks")
    if prompt != "text" and config.data_transforms.scale == "native":
        raise UserError(f"{path}: sees windows (data_transforms.scale: native), which are prompted by text alone")
    if prompt != "points" and options.clicks:
        raise UserError(f"{path}: --clicks: is for --prompt points, and the prompt is {prompt}")
    model.prompt_by(prompt, options.clicks)


def _native_logits(predictor: Predictor, dataset: GeneralDataset, options: PredictionOptions) -> NativeLogits:
    """The function that predicts a sample as `main.py predict` does; an image's labels are predicted together."""
    labels = list(dict.fromkeys(sample.label_name for sample in dataset.samples))

    @lru_cache(maxsize=1)
    def of_image(path: Path) -> Tensor:
        return predictor.array_logits(read_image(path), labels, tile=options.tile, flips=options.flips)

    def of_sample(index: int) -> Tensor:
        sample = dataset.samples[index]
        return of_image(sample.image_path)[labels.index(sample.label_name)]

    return of_sample


def threshold_fields(settings: EvaluationConfig) -> dict[str, Any]:
    """The fields of `ThresholdedScores` beside the scores."""
    threshold = Threshold.of(settings)
    return {"threshold": threshold.high, "low": threshold.low}


def result_metadata(config: Config, model: SegmentationModel, split: str, weights: Path | None) -> dict[str, Any]:
    """What is evaluated, and on what: the fields that every results.json begins with."""
    data, counts = config.require_data(), parameter_counts(model)
    return {
        "schema_version": SCHEMA_VERSION,
        "method": config.strategy,
        "arch": config.arch,
        "sam_type": config.baseline.size if config.arch in BASELINE_ARCHS else config.sam.sam_type,
        "profile": config.profile,
        "ranks": _ranks(config.ft),
        "layer_ranks": {name: layer.ranks for name, layer in adapted_layers(model)}
        if config.ft.rank_rule != "fixed"
        else {},
        "prompt": model.prompt,
        "text_encoder": config.prompts.text_encoder if model.prompt in ("text", "mixed") else None,
        "clicks": model.clicks if isinstance(model, PromptedModel) and model.prompt == "points" else None,
        "weights": "random" if config.pretrained_path is None else config.pretrained_path.name,
        "dataset": data.name,
        "split": split,
        "val_split": data.val,
        "epoch_chosen_on": EPOCH_CHOSEN_ON[data.val] if config.strategy != "none" else None,
        "fold": data.fold_num,
        "seed": config.seed,
        "checkpoint": Checkpoint(
            path=str(weights) if weights else None,
            sha256=sha256(weights) if weights else None,
            base_sha256=model.base_sha256 or None,
            clip_sha256=model.clip_sha256 or None,
        ),
        **{key: counts[key] for key in ("trainable", "total", "percent")},
    }


def _ranks(ft: FtConfig) -> dict[str, Any]:
    used = METHODS[ft.type].ranks if ft.type else ()
    keys = set().union(*(RANK_KEYS[rank] for rank in used), RULE_KEYS[ft.rank_rule])
    ranks = ft.model_dump(mode="json", include=keys, exclude_none=True)
    if ft.rank_rule in ("energy", "stable_rank"):  # instead of these three
        return {key: value for key, value in ranks.items() if not key.startswith("svd_")}
    if "svd_ratio" in ranks:  # replaces both
        del ranks["svd_rank_linear"], ranks["svd_rank_conv2d"]
    return ranks
