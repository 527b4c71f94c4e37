"""Finds the finished runs below a folder and reads their results.json and per_image.csv."""

import csv
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from report.paper import column_name
from report.rows import RowKey, row_key
from utils.errors import UserError

log = logging.getLogger(__name__)

Weights = Literal["last", "best_val"]
Size = Literal["img_size", "native"]
ImageKey = tuple[str, str]  # image file, label
Images = Mapping[ImageKey, Mapping[str, float]]  # per image: dice, hd95, dice_native, hd95_native

IMAGE_COLUMNS = ("dice", "hd95", "dice_native", "hd95_native")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Measure(_Record):
    """Mean over the test samples, and the 95% bootstrap interval that the run wrote."""

    mean: float
    ci95: tuple[float, float] | None = None


class AtSize(_Record):
    """Scores at one image size; `n` samples, `n_empty` of them with exactly one empty mask."""

    dice: Measure
    hd95: Measure
    n: int
    n_empty: int = 0


class Scores(_Record):
    """Scores of one set of weights."""

    epoch: int | None = None
    img_size: AtSize
    native: AtSize


class Checkpoint(_Record):
    """Which files the numbers belong to."""

    path: str | None = None
    base_sha256: str | None = None


class Results(_Record):
    """What of a results.json the report uses. Other keys are passed over."""

    method: str
    arch: str
    sam_type: str | None = None
    profile: str = "official"
    ranks: dict[str, Any] = {}
    prompt: str = "text"
    text_encoder: str | None = None
    weights: str | None = None
    dataset: str
    val_split: str = "val"
    fold: int = 0
    img_size: int
    seed: int
    checkpoint: Checkpoint = Checkpoint()
    trainable: int
    percent: float
    last: Scores
    best_val: Scores | None = None
    epochs: int | None = None
    seconds_per_epoch: float | None = None
    peak_memory_bytes: int | None = None


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, results, row of the table, column, and its scores image by image.

    `images` holds, for each set of weights, what per_image.csv says; it is empty where that file cannot be used.
    `folds` are those of a cross-validation that this run stands for (see `report.folds`), () for a run of its own.
    """

    folder: Path
    results: Results
    key: RowKey
    column: str
    images: Mapping[str, Images]
    folds: tuple[int, ...] = ()

    def scores(self, weights: Weights, size: Size) -> AtSize | None:
        """The scores of one set of weights, or None where the run has none (nothing was trained)."""
        of_weights: Scores | None = getattr(self.results, weights)
        return getattr(of_weights, size) if of_weights else None


@dataclass(frozen=True)
class Gathered:
    """The runs of a folder; `problems` names each that was left out or is not whole; `evaluations` counts `test`'s."""

    folder: Path
    runs: Sequence[Run]
    problems: Sequence[str]
    evaluations: int = 0


def gather(folder: Path) -> Gathered:
    """Reads every finished run below `folder` (itself included), in the order of their paths.

    Runs of one row, dataset and seed that differ in their fold are those of a cross-validation. A damaged file is left
    out and named in `problems`. Of two runs with the same row, dataset, seed and fold the first in path order is taken,
    and `problems` names both.

    Raises:
        UserError: no such folder, or no usable run in it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of runs")
    taken: dict[tuple[RowKey, str, int, int], Run] = {}
    problems: list[str] = []
    evaluations = 0
    for path in sorted(folder.rglob("results.json")):
        try:
            run, problem = _read_run(path)
        except UserError as error:
            problems.append(f"{error}; left out")
            continue
        if run is None:
            evaluations += 1
            continue
        first = taken.setdefault((run.key, run.column, run.results.seed, run.results.fold), run)
        if first is not run:
            problems.append(
                f"{run.folder}: same method, dataset, seed ({run.results.seed}) and fold ({run.results.fold}) as "
                f"{first.folder}; {first.folder} is taken, {run.folder} left out"
            )
        elif problem:
            problems.append(problem)
    if not taken:
        found = f": {problems[0]}" if problems else ""
        raise UserError(f"{folder}: no finished run (a results.json with 'last') in it or below{found}")
    return Gathered(folder, list(taken.values()), problems, evaluations)


def _read_run(path: Path) -> tuple[Run | None, str]:
    """A run and what is wrong with its per_image.csv ("" for nothing); None for an evaluation written by `test`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: is no JSON object")
    if "last" not in content and {"img_size", "native", "method"} <= set(content):
        return None, ""
    try:
        results = Results.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: key '{key}': {first['msg'].lower()}") from error
    problem, images = "", {}
    try:
        images = read_per_image(path.with_name("per_image.csv"))
    except UserError as error:
        problem = f"{error}; no interval over seeds and no test for this run"
    column = column_name(results.dataset)
    return Run(path.parent, results, row_key(results), column, images), problem


def read_per_image(path: Path) -> dict[str, dict[ImageKey, dict[str, float]]]:
    """{weights: {(image, label): {"dice", "hd95", "dice_native", "hd95_native"}}} of a per_image.csv.

    Raises:
        UserError: missing, without a column, with a value that is no number, or with two rows of one image and label.
    """
    result: dict[str, dict[ImageKey, dict[str, float]]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.DictReader(file), start=2):
                key = (row["image"], row["label"])
                of_weights = result.setdefault(row["weights"], {})
                if key in of_weights:
                    raise UserError(f"{path}: line {number}: a second row of {key[0]}, {key[1]}")
                of_weights[key] = {column: _number(row[column]) for column in IMAGE_COLUMNS}
    except KeyError as error:
        raise UserError(f"{path}: no column {error}") from error
    except (TypeError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: line {number}: {error}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    return result


def _number(text: str | None) -> float:
    value = float(text) if text is not None else math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is no finite number")
    return value
