"""The one schema of results: results.json and per_image.csv are written and read here."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import Field, SerializerFunctionWrapHandler, ValidationError, model_serializer

from evaluation.columns import ALL_COLUMNS, IMAGE_COLUMNS, score_columns
from evaluation.metrics import PairScore, summarize
from evaluation.rank_cut import RankCut
from evaluation.summaries import AtSize, Record
from utils.config.options import Weights
from utils.errors import UserError
from utils.files import csv_text, write_json, write_text

RESULTS_FILE = "results.json"
PER_IMAGE_FILE = "per_image.csv"
# Raised when a key changes its meaning; a new key has a default. Files without a version are of version 1: same keys.
SCHEMA_VERSION = 2

ImageKey = tuple[str, str]  # image file, label
# Of each image: the values of IMAGE_COLUMNS, and of further columns where they were computed and are defined.
Images = Mapping[ImageKey, Mapping[str, float]]


class Scores(Record):
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


class ThresholdedScores(Scores):
    """Scores of masks: the probability is above `threshold`; with `low`, above it and connected to such a pixel."""

    threshold: float = 0.5
    low: float | None = None


class EpochScores(ThresholdedScores):
    """Scores of the weights of one epoch; 0 is the model before training."""

    epoch: int | None = None


class Checkpoint(Record):
    """The files that the numbers belong to: the weights file's path, and SHA-256 hashes."""

    path: str | None = None
    sha256: str | None = None
    base_sha256: str | None = None
    clip_sha256: str | None = None


class _Evaluation(Record):
    """What was evaluated, and on what: the keys that every results.json begins with.

    `val_split` is the split that the best epoch was chosen on, `epoch_chosen_on` the same in words. `trainable`,
    `total` and `percent` are counted the paper's way (`networks.strategies.parameter_counts`). `layer_ranks` holds the
    ranks of each adapted layer where a rule chose them (`ft.rank_rule`).
    """

    schema_version: int = 1
    method: str
    arch: str
    sam_type: str | None = None
    profile: str = "official"
    ranks: dict[str, Any] = Field(default={})
    layer_ranks: dict[str, dict[str, int]] = Field(default={})
    prompt: str = "text"
    text_encoder: str | None = None
    clicks: int | None = None
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
    seconds of the wall clock. `rank_cut` says what a cut of the ranks did, where there was one.
    """

    img_size: int
    last: EpochScores
    best_val: EpochScores | None = None
    epochs: int | None = None
    precision: str | None = None
    processes: int | None = None
    skipped_steps: int | None = None
    ema_decay: float | None = None
    rank_cut: RankCut | None = None
    seconds: dict[str, float] = Field(default={})
    seconds_per_epoch: float | None = None
    peak_memory_bytes: int | None = None

    def scores(self, weights: Weights) -> EpochScores | None:
        """The scores of one set of weights, or None where the run has none."""
        return self.last if weights == "last" else self.best_val


class CheckpointResults(_Evaluation, ThresholdedScores):
    """The results.json of `main.py test`: the scores of one weights file on one split.

    Its key `img_size` holds scores; the model's image size has no key of its own there. `prediction` holds the options
    of `PredictionOptions` that are not the checkpoint's own, `averaged` all weights files where there are several.
    """

    prediction: dict[str, Any] = Field(default_factory=dict)
    averaged: list[str] = Field(default_factory=list)


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
    content = results.model_dump(mode="json")
    for key in ("layer_ranks", "rank_cut"):  # only where a rule chose the ranks
        if not content.get(key):
            content.pop(key, None)
    write_json(folder / RESULTS_FILE, content)


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
    """Writes per_image.csv atomically: a row for each set of weights, image and label. An undefined value is empty."""
    rows = [
        (weights, score, score_columns(score.img_size, score.native))
        for weights, scores in scores_by_weights.items()
        for score in scores
    ]
    columns = dict.fromkeys([*IMAGE_COLUMNS, *(column for _, _, values in rows for column in values)])
    lines = []
    for weights, score, values in rows:
        numbers = ["" if (value := values.get(column)) is None else f"{value:.6f}" for column in columns]
        # One mask may be empty at one size alone: the last column is of the image's own.
        lines.append([weights, score.name, score.label, *numbers, int(score.native.one_empty)])
    write_text(folder / PER_IMAGE_FILE, csv_text(["weights", "image", "label", *columns, "one_empty"], lines))


def read_per_image(folder: Path) -> dict[str, dict[ImageKey, dict[str, float]]]:
    """{weights: {(image, label): {column: value}}} of the per_image.csv in `folder`; see `Images`.

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
                values = {column: _finite(row[column]) for column in IMAGE_COLUMNS}
                further = {column: row[column] for column in row if column in ALL_COLUMNS and row[column]}
                of_weights[key] = values | {column: _finite(text) for column, text in further.items()}
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
