"""The one schema of results: results.json and per_image.csv are written and read here."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer

from evaluation.metrics import PairScore, summarize
from utils.config.options import Weights
from utils.errors import UserError
from utils.files import atomic_path, write_json

RESULTS_FILE = "results.json"
PER_IMAGE_FILE = "per_image.csv"
# Raised when a key changes its meaning. Files without a version are of version 1, which has the same keys.
SCHEMA_VERSION = 2

ImageKey = tuple[str, str]  # image file, label
Images = Mapping[ImageKey, Mapping[str, float]]  # of each image: the values of IMAGE_COLUMNS
IMAGE_COLUMNS = ("dice", "hd95", "dice_native", "hd95_native")


class _Record(BaseModel):
    """A block of results.json. Keys that this version does not know are ignored."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Measure(_Record):
    """A metric over the samples: mean, sample standard deviation, and the mean's 95% bootstrap interval."""

    mean: float
    std: float | None = None
    ci95: tuple[float, float] | None = None


class Distance(Measure):
    """HD95 in pixels. `mean_without_empty` leaves out pairs with exactly one empty mask; None where none remains."""

    mean_without_empty: float | None = None


class AtSize(_Record):
    """Scores at one image size: `n` samples, of which `n_empty` have exactly one empty mask."""

    dice: Measure
    hd95: Distance
    n: int
    n_empty: int = 0


class Scores(_Record):
    """Scores of one model at both sizes; `labels` holds those of each label where there are several."""

    img_size: AtSize
    native: AtSize
    labels: dict[str, "Scores"] | None = None

    @model_serializer(mode="wrap")
    def _without_missing_labels(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content = serialize(self)
        if self.labels is None:
            content.pop("labels", None)
        return content

    @classmethod
    def of(cls, scores: Sequence["ImageScore"]) -> Self:
        """The summary of at least one score. Raises: ValueError without scores."""
        labels = sorted({score.label for score in scores})
        return cls(
            img_size=AtSize(**summarize([score.img_size for score in scores])),
            native=AtSize(**summarize([score.native for score in scores])),
            labels={label: Scores.of([score for score in scores if score.label == label]) for label in labels}
            if len(labels) > 1
            else None,
        )


class EpochScores(Scores):
    """Scores of the weights of one epoch; 0 is the model before training."""

    epoch: int | None = None


class Checkpoint(_Record):
    """The files that the numbers belong to: the weights file's path, and SHA-256 hashes."""

    path: str | None = None
    sha256: str | None = None
    base_sha256: str | None = None
    clip_sha256: str | None = None


class _Evaluation(_Record):
    """What was evaluated, and on what: the keys that every results.json begins with.

    `val_split` is the split that the best epoch was chosen on, `epoch_chosen_on` the same in words. `trainable`,
    `total` and `percent` are counted the paper's way (`networks.strategies.parameter_counts`).
    """

    schema_version: int = 1
    method: str
    arch: str
    sam_type: str | None = None
    profile: str = "official"
    ranks: dict[str, Any] = {}
    prompt: str = "text"
    text_encoder: str | None = None
    weights: str | None = None
    dataset: str
    split: str = "test"
    val_split: str = "val"
    epoch_chosen_on: str | None = None
    fold: int = 0
    seed: int
    checkpoint: Checkpoint = Checkpoint()
    trainable: int
    total: int | None = None
    percent: float


class RunResults(_Evaluation):
    """The results.json of a run: scores after the last epoch and of the best one, and what the run took.

    `img_size` is the side of the model's square in pixels. `best_val` is None where nothing was trained. Times are in
    seconds of the wall clock.
    """

    img_size: int
    last: EpochScores
    best_val: EpochScores | None = None
    epochs: int | None = None
    precision: str | None = None
    processes: int | None = None
    skipped_steps: int | None = None
    ema_decay: float | None = None
    seconds: dict[str, float] = {}
    seconds_per_epoch: float | None = None
    peak_memory_bytes: int | None = None

    def scores(self, weights: Weights) -> EpochScores | None:
        """The scores of one set of weights, or None where the run has none."""
        return self.last if weights == "last" else self.best_val


class CheckpointResults(_Evaluation, Scores):
    """The results.json of `main.py test`: the scores of one weights file on one split.

    Its key `img_size` holds scores; the model's image size has no key of its own there. `prediction` holds the options
    of prediction that are not the defaults (tile, flips, threshold), `averaged` all weights files where there are several.
    """

    prediction: dict[str, Any] = {}
    averaged: list[str] = []


@dataclass(frozen=True)
class ImageScore:
    """Scores of one image for one label, at the model's image size and at the image's own size.

    `name` is the image's path below images/.
    """

    name: str
    label: str
    img_size: PairScore
    native: PairScore


def write_results(folder: Path, results: RunResults | CheckpointResults) -> None:
    """Writes results.json atomically."""
    write_json(folder / RESULTS_FILE, results.model_dump(mode="json"))


def read_results(path: Path) -> RunResults | CheckpointResults:
    """Reads a results.json of this version or an older one.

    Raises:
        UserError: unreadable, not a JSON object, of a newer version, or a key is missing or has a wrong value.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: is no JSON object")
    version = content.get("schema_version", 1)
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise UserError(f"{path}: is of schema version {version}, this program reads up to {SCHEMA_VERSION}; update it")
    of_checkpoint = "last" not in content and {"img_size", "native", "method"} <= set(content)
    try:
        return CheckpointResults.model_validate(content) if of_checkpoint else RunResults.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: key '{key}': {first['msg'].lower()}") from error


def read_run_results(folder: Path) -> RunResults:
    """The results of the finished run in `folder`. Raises: UserError as `read_results`, or for `test`'s results."""
    results = read_results(folder / RESULTS_FILE)
    if not isinstance(results, RunResults):
        raise UserError(f"{folder / RESULTS_FILE}: was written by the command test, not by a run")
    return results


def write_per_image(folder: Path, scores_by_weights: Mapping[str, Sequence[ImageScore]]) -> None:
    """Writes per_image.csv atomically: a row for each set of weights, image and label."""
    with atomic_path(folder / PER_IMAGE_FILE) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["weights", "image", "label", *IMAGE_COLUMNS, "one_empty"])
        for weights, scores in scores_by_weights.items():
            for score in scores:
                values = (score.img_size.dice, score.img_size.hd95, score.native.dice, score.native.hd95)
                numbers = [f"{value:.6f}" for value in values]
                writer.writerow([weights, score.name, score.label, *numbers, int(score.native.one_empty)])


def read_per_image(folder: Path) -> dict[str, dict[ImageKey, dict[str, float]]]:
    """{weights: {(image, label): {column of IMAGE_COLUMNS: value}}} of the per_image.csv in `folder`.

    Raises:
        UserError: missing, without a column, with a value that is no number, or with two rows of one image and label.
    """
    path = folder / PER_IMAGE_FILE
    result: dict[str, dict[ImageKey, dict[str, float]]] = {}
    number = 1
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.DictReader(file), start=2):
                key = (row["image"], row["label"])
                of_weights = result.setdefault(row["weights"], {})
                if key in of_weights:
                    raise UserError(f"{path}: line {number}: a second row of {key[0]}, {key[1]}")
                of_weights[key] = {column: _finite(row[column]) for column in IMAGE_COLUMNS}
    except KeyError as error:
        raise UserError(f"{path}: no column {error}") from error
    except (TypeError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: line {number}: {error}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    return result


def _finite(text: str | None) -> float:
    value = float(text) if text is not None else math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is no finite number")
    return value
