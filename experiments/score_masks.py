"""Scores a folder of masks against the true ones: `main.py score`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from datasets.converters.classes import Classes, parse_classes
from datasets.converters.pattern import Pairing, pair_by
from datasets.converters.proposal import propose
from datasets.converters.search import images_below
from datasets.io import read_image, read_mask
from datasets.masks import size_text
from evaluation.metrics import score_pair
from evaluation.results import (
    RESULTS_FILE,
    SCHEMA_VERSION,
    CheckpointResults,
    ImageScore,
    Scores,
    read_results,
    write_per_image,
    write_results,
)
from utils.errors import ConfigError, UserError

_ARCH = "masks"
_FOREGROUND = "Foreground"
_MAX_LABELS = 64
_SHOWN = 3


def score_masks(
    predictions: Path,
    truth: Path,
    output: Path,
    pattern: str | None = None,
    classes: Sequence[str] | None = None,
    threshold: float | None = None,
    metrics: Sequence[str] | None = None,
) -> CheckpointResults:
    """Scores every true mask's prediction, and writes results.json and per_image.csv to `output`.

    The masks are compared at their own size, so both sizes of the results are that one. Masks of 0 and 1, or 0 and 255,
    have the label Foreground; others a label for each value of a true mask.

    Args:
        pattern: TRUTH=PREDICTION, see `pair_by`; None proposes one.
        classes: names of colours or values, see `parse_classes`.
        threshold: predictions are probabilities, scaled to the whole range of their type; above it is foreground.
        metrics: beside Dice and HD95, of those of masks.

    Raises: ConfigError for a bad option; UserError that names the file: a true mask without prediction, masks of
        different sizes, values that the truth does not have.
    """
    if classes and threshold is not None:
        raise ConfigError("--classes and --threshold: give one of them")
    _refuse_other_results(output)
    pairing = _paired(predictions, truth, pattern)
    named = parse_classes(classes) if classes else None
    names = named.labels if named else _names([mask for mask, _ in pairing.pairs])
    if threshold is not None and names != {1: _FOREGROUND}:
        raise ConfigError(
            f"--threshold: is for true masks of 0 and 1, or 0 and 255; {truth} has {', '.join(names.values())}"
        )
    scores = []
    for true_path, predicted_path in pairing.pairs:
        true = _read(true_path, named, None)
        predicted = _read(predicted_path, named, threshold)
        if predicted.shape != true.shape:
            ours, theirs = size_text(predicted.shape), size_text(true.shape)
            raise UserError(
                f"{predicted_path}: {ours} pixels, but the true mask {true_path.name} is {theirs} (width x height)"
            )
        _check_values(predicted, predicted_path, names)
        name = true_path.relative_to(truth).as_posix()
        for value, label in names.items():
            pair = score_pair(_is(predicted, value, names), _is(true, value, names), metrics or ())
            scores.append(ImageScore(name, label, pair, pair))
    output.mkdir(parents=True, exist_ok=True)
    results = CheckpointResults(
        schema_version=SCHEMA_VERSION,
        method=predictions.resolve().name,
        arch=_ARCH,
        dataset=truth.resolve().name,
        seed=0,
        trainable=0,
        percent=0.0,
        **dict(Scores.of(scores)),
    )
    write_per_image(output, {"masks": scores})
    write_results(output, results)
    return results


def _refuse_other_results(output: Path) -> None:
    """Raises UserError where `output` has results that are not of such a folder of masks."""
    file = output / RESULTS_FILE
    if file.is_file():
        found = read_results(file)
        if not isinstance(found, CheckpointResults) or found.arch != _ARCH:
            raise UserError(f"{file}: holds the results of a model; give another --output")


def _paired(predictions: Path, truth: Path, pattern: str | None) -> Pairing:
    """Pairs (true mask, prediction). Raises: UserError for a true mask without a prediction."""
    true, predicted = images_below(truth), images_below(predictions)
    pairing = pair_by(pattern, true, predicted) if pattern else propose(true, predicted)
    if pairing.unpaired_images or not pairing.pairs:
        missing = [path.name for path in pairing.unpaired_images]
        shown = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
        raise UserError(
            f"{predictions}: {len(missing)} of {len(true)} masks in {truth} have no prediction by {pairing.pattern} "
            f"({shown}); predict them, or give --pattern TRUTH=PREDICTION"
        )
    return pairing


def _names(truths: Sequence[Path]) -> dict[int, str]:
    """The labels of the true masks, by value; {1: "Foreground"} where they hold nothing but 0 and 1, or 0 and 255."""
    values = set()
    for path in truths:
        values |= set(np.unique(read_mask(path)).tolist())
        if len(values) > _MAX_LABELS:
            raise UserError(f"{path}: {len(values)} values are not labels; are these the true masks?")
    values -= {0}
    return {1: _FOREGROUND} if values <= {1, 255} else {value: f"Label {value}" for value in sorted(values)}


def _read(path: Path, classes: Classes | None, threshold: float | None) -> np.ndarray:
    if classes:
        return classes.read(path).astype(np.int64)
    if threshold is None:
        return read_mask(path)
    values = read_image(path)  # probabilities of any bit depth, from 0 to the largest value of the type
    if (values != values[..., :1]).any():
        raise UserError(f"{path}: probabilities in colour; save them as a grey PNG")
    return (values[..., 0] > threshold * np.iinfo(values.dtype).max).astype(np.int64)


def _is(mask: np.ndarray, value: int, names: Mapping[int, str]) -> np.ndarray:
    return mask > 0 if names == {1: _FOREGROUND} else mask == value


def _check_values(mask: np.ndarray, path: Path, names: Mapping[int, str]) -> None:
    allowed = {0, 1, 255} if names == {1: _FOREGROUND} else {0, *names}
    if unknown := sorted(set(np.unique(mask).tolist()) - allowed):
        shown = ", ".join(map(str, unknown[:_SHOWN]))
        raise UserError(
            f"{path}: holds {shown}, which no true mask does; give --classes, or --threshold for probabilities"
        )
