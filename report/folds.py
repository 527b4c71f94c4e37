"""The folds of a cross-validation as one run: each image is tested in one fold, and counts once."""

from collections.abc import Sequence
from dataclasses import replace

from evaluation.metrics import bootstrap_interval
from report.gather import AtSize, Images, Measure, Run, Scores
from report.rows import RowKey


def join_folds(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Runs with the folds of one row, dataset and seed as one, and what is not right with those folds.

    Their scores are the mean over the folds, each counted by its test samples: the mean over all tested images. What is
    no score, folder and figures included, is the first fold's, but for the memory peak, which is the highest.

    Returns:
        The runs, one for each row, dataset and seed, in the order of the first of each; lines that name folders.
    """
    groups: dict[tuple[RowKey, str, int], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.key, run.column, run.results.seed), []).append(run)
    joined, problems = [], []
    for group in groups.values():
        if len(group) > 1:
            problems += _differences(group)
        joined.append(_one_run(group) if len(group) > 1 else group[0])
    return joined, problems


def _one_run(folds: Sequence[Run]) -> Run:
    folds = sorted(folds, key=lambda run: run.results.fold)
    first = folds[0]
    images = {weights: table for weights in first.images if (table := _all_images(folds, weights))}
    peaks = [run.results.peak_memory_bytes for run in folds if run.results.peak_memory_bytes]
    changes = {
        "last": _mean_scores([run.results.last for run in folds], images.get("last")),
        "best_val": _mean_scores([run.results.best_val for run in folds], images.get("best_val")),
        "peak_memory_bytes": max(peaks, default=None),
    }
    results = first.results.model_copy(update=changes)
    return replace(first, results=results, images=images, folds=tuple(run.results.fold for run in folds))


def _all_images(folds: Sequence[Run], weights: str) -> Images | None:
    """The scores of every fold's images; None where a fold has none, or two folds tested one image."""
    tables = [run.images.get(weights, {}) for run in folds]
    joined = {key: scores for table in tables for key, scores in table.items()}
    return joined if all(tables) and len(joined) == sum(map(len, tables)) else None


def _mean_scores(of_folds: Sequence[Scores | None], images: Images | None) -> Scores | None:
    scores = [of_fold for of_fold in of_folds if of_fold]
    if len(scores) < len(of_folds):
        return None
    at_sizes = {
        size: _at_size([getattr(of_fold, size) for of_fold in scores], suffix, images)
        for size, suffix in (("img_size", ""), ("native", "_native"))
    }
    return Scores(epoch=None, **at_sizes)


def _at_size(folds: Sequence[AtSize], suffix: str, images: Images | None) -> AtSize:
    n = sum(fold.n for fold in folds)
    measures = {}
    for metric in ("dice", "hd95"):
        mean = sum(getattr(fold, metric).mean * fold.n for fold in folds) / n
        values = [scores[metric + suffix] for scores in images.values()] if images else None
        measures[metric] = Measure(mean=mean, ci95=bootstrap_interval(values) if values else None)
    return AtSize(**measures, n=n, n_empty=sum(fold.n_empty for fold in folds))


def _differences(folds: Sequence[Run]) -> list[str]:
    """What the folds of one mean should have in common, or apart, and have not."""
    facts = {
        "epochs": {run.results.epochs for run in folds},
        "base weights": {run.results.checkpoint.base_sha256 for run in folds},
        "trainable parameters": {run.results.trainable for run in folds},
    }
    names = ", ".join(str(run.folder) for run in folds)
    lines = [f"{names}: folds with different {fact} in one mean" for fact, values in facts.items() if len(values) > 1]
    tested = [set(run.images["last"]) for run in folds if run.images.get("last")]
    if sum(map(len, tested)) > len(set().union(*tested)):
        lines.append(f"{names}: folds that tested the same images; no interval, no test")
    return lines
