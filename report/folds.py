"""Joins the folds of a cross-validation into one run: each image is tested in one fold, and counts once."""

from collections.abc import Sequence
from dataclasses import replace

from evaluation.columns import image_column
from evaluation.metrics import bootstrap_interval
from evaluation.results import EpochScores, Images
from evaluation.summaries import AtSize, Distance, Measure, PartialMeasure
from report.gather import Run, differing_settings
from report.rows import RowKey
from utils.config.options import Region, Size, Weights


def join_folds(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Joins the folds of each row, dataset and seed into one run.

    Its scores are the mean over the folds, weighted by their test samples: the mean over all tested images. Its peak
    memory is the highest of the folds. Everything else, folder and figures included, is the first fold's.

    Returns:
        The runs, one for each row, dataset and seed, in the order of their first fold; and the problems found, each a
        line that names the folders.
    """
    groups: dict[tuple[RowKey, str, int], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.key, run.column, run.results.seed), []).append(run)
    problems = [line for folds in groups.values() if len(folds) > 1 for line in _problems(folds)]
    return [_join(folds) if len(folds) > 1 else folds[0] for folds in groups.values()], problems


def _join(folds: Sequence[Run]) -> Run:
    folds = sorted(folds, key=lambda run: run.results.fold)
    first = folds[0]
    images = {weights: joined for weights in first.images if (joined := _join_images(folds, weights))}
    peaks = [run.results.peak_memory_bytes for run in folds if run.results.peak_memory_bytes]
    changes = {
        "last": _mean_scores(folds, "last", images.get("last")),
        "best_val": _mean_scores(folds, "best_val", images.get("best_val")),
        "peak_memory_bytes": max(peaks, default=None),
    }
    results = first.results.model_copy(update=changes)
    return replace(first, results=results, images=images, folds=tuple(run.results.fold for run in folds))


def _join_images(folds: Sequence[Run], weights: str) -> Images | None:
    """The scores of every fold's images; None where a fold has none, or two folds tested the same image."""
    tables = [run.images.get(weights, {}) for run in folds]
    joined = {key: scores for table in tables for key, scores in table.items()}
    return joined if all(tables) and len(joined) == sum(map(len, tables)) else None


def _mean_scores(folds: Sequence[Run], weights: Weights, images: Images | None) -> EpochScores | None:
    """The mean over the folds, each weighted by its test samples; None where a fold has no scores."""
    scores = [of_fold for run in folds if (of_fold := run.results.scores(weights))]
    if len(scores) < len(folds):
        return None
    return EpochScores(
        img_size=_mean_at_size([of_fold.img_size for of_fold in scores], "img_size", images),
        native=_mean_at_size([of_fold.native for of_fold in scores], "native", images),
    )


def _mean_at_size(folds: Sequence[AtSize], size: Size, images: Images | None, region: Region = "whole") -> AtSize:
    n = sum(fold.n for fold in folds)

    def interval(metric: str) -> tuple[float, float] | None:
        column = image_column(metric, size, region)
        values = [scores[column] for scores in images.values() if column in scores] if images else []
        return bootstrap_interval(values) if values else None

    def mean_of_others(metric: str) -> PartialMeasure:
        measures = [fold.others[metric] for fold in folds]
        defined = sum(measure.n for measure in measures)
        total = sum(measure.mean * measure.n for measure in measures if measure.mean is not None)
        return PartialMeasure(mean=total / defined if defined else None, ci95=interval(metric), n=defined)

    shared = [metric for metric in folds[0].others if all(metric in fold.others for fold in folds)]
    inside = [fold.fov for fold in folds if fold.fov is not None]
    return AtSize(
        dice=Measure(mean=sum(fold.dice.mean * fold.n for fold in folds) / n, ci95=interval("dice")),
        hd95=Distance(mean=sum(fold.hd95.mean * fold.n for fold in folds) / n, ci95=interval("hd95")),
        n=n,
        n_empty=sum(fold.n_empty for fold in folds),
        others={metric: mean_of_others(metric) for metric in shared},
        fov=_mean_at_size(inside, size, images, "fov") if len(inside) == len(folds) else None,
    )


def _problems(folds: Sequence[Run]) -> list[str]:
    """What the folds of one mean should have in common, or apart, and have not."""
    names = ", ".join(str(run.folder) for run in folds)
    lines = [f"{names}: folds with different {setting} in one mean" for setting in differing_settings(folds)]
    tested = [key for run in folds for key in run.images.get("last", ())]
    if len(tested) > len(set(tested)):
        lines.append(f"{names}: folds that tested the same images; no interval, no test")
    return lines
