"""Cells and rows of the table: the runs of one method on one dataset, put together over their seeds."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.metrics import bootstrap_interval
from report.gather import ImageKey, Run, Size, Weights
from report.paper import PaperRow, PaperScore
from report.rows import RowKey

METRIC_NAMES = ("dice", "hd95")
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Score:
    """A metric over the seeds.

    Attributes:
        by_seed: the test set's mean of each seed, in the order of the seeds.
        mean, std: of `by_seed`; std is the sample's, None for one seed.
        interval: 95% bootstrap interval over the images, each averaged over the seeds first; None where unknown.
    """

    by_seed: tuple[float, ...]
    interval: tuple[float, float] | None = None

    @property
    def mean(self) -> float:
        return float(np.mean(self.by_seed))

    @property
    def std(self) -> float | None:
        return float(np.std(self.by_seed, ddof=1)) if len(self.by_seed) > 1 else None


@dataclass(frozen=True)
class Cell:
    """What one row has on one dataset.

    Attributes:
        scores: {"dice", "hd95"}; empty for a missing cell.
        paper: the paper's number, or None.
        runs: one a seed, in the order of seeds.
        n: test samples of each run (0 for none); n_empty: those with one empty mask, over all seeds.
        dice_by_image: Dice of each sample, averaged over the seeds; None where it cannot be had.
        remarks: what is not right with the runs' files.
    """

    scores: dict[str, Score]
    paper: PaperScore | None = None
    runs: Sequence[Run] = ()
    n: int = 0
    n_empty: int = 0
    dice_by_image: dict[ImageKey, float] | None = None
    remarks: Sequence[str] = ()

    @property
    def seeds(self) -> int:
        """How many seeds the mean is over."""
        return len(self.runs)

    def difference(self, metric: str) -> float | None:
        """Our mean minus the paper's number, where there are both."""
        printed = getattr(self.paper, metric) if self.paper else None
        score = self.scores.get(metric)
        return score.mean - float(printed) if score and printed else None


@dataclass(frozen=True)
class Row:
    """A row: `key` is None where no run stands behind it, `paper` None where it is not in the paper."""

    label: str
    key: RowKey | None
    paper: PaperRow | None
    cells: dict[str, Cell]
    average: Cell | None = None

    @property
    def runs(self) -> list[Run]:
        """Every run behind this row's numbers."""
        return [run for cell in self.cells.values() for run in cell.runs]

    @property
    def ranked(self) -> bool:
        """Whether the row may be the best: not where the truth itself gave the prompt."""
        return self.key is not None and self.key.prompt != "box_oracle"


def make_cell(runs: Sequence[Run], weights: Weights, size: Size, paper: PaperScore | None) -> Cell:
    """Averages the runs (all of one row and dataset) over their seeds; runs without these weights do not count."""
    runs = sorted((run for run in runs if run.scores(weights, size)), key=lambda run: run.results.seed)
    if not runs:
        return Cell({}, paper)
    all_scores = [scores for run in runs if (scores := run.scores(weights, size))]
    by_image, remarks = _average_images(runs, weights)
    suffix = "_native" if size == "native" else ""
    scores = {}
    for metric in METRIC_NAMES:
        means = [getattr(at_size, metric).mean for at_size in all_scores]
        interval = getattr(all_scores[0], metric).ci95 if len(runs) == 1 else None
        if by_image:
            values = [of_image[metric + suffix] for of_image in by_image.values()]
            interval = bootstrap_interval(values)
            if not math.isclose(np.mean(values), np.mean(means), rel_tol=_TOLERANCE, abs_tol=_TOLERANCE):
                remarks.append(f"{_folders(runs)}: per_image.csv and results.json give different means of {metric}")
        scores[metric] = Score(tuple(means), interval)
    dice = {key: of_image["dice" + suffix] for key, of_image in by_image.items()} if by_image else None
    sizes = sorted({at_size.n for at_size in all_scores})
    if len(sizes) > 1:
        remarks.append(f"{_folders(runs)}: seeds with {' and '.join(map(str, sizes))} test samples in one mean")
    remarks += _differences(runs)
    n_empty = sum(at_size.n_empty for at_size in all_scores)
    return Cell(scores, paper, runs, sizes[0], n_empty, dice, remarks)


def average_cell(cells: Sequence[Cell], paper: PaperScore | None) -> Cell:
    """The mean of several datasets' means; empty where one is missing.

    It has a spread over the seeds where every dataset has the same seeds, and no interval.
    """
    if not all(cell.scores for cell in cells):
        return Cell({}, paper)
    seeds = {tuple(run.results.seed for run in cell.runs) for cell in cells}
    scores = {}
    for metric in METRIC_NAMES:
        by_seed = np.array([cell.scores[metric].by_seed for cell in cells]).mean(0) if len(seeds) == 1 else ()
        overall = [float(np.mean([cell.scores[metric].mean for cell in cells]))]
        scores[metric] = Score(tuple(float(value) for value in by_seed) or tuple(overall))
    return Cell(scores, paper, cells[0].runs if len(seeds) == 1 else ())


def _average_images(runs: Sequence[Run], weights: Weights) -> tuple[dict[ImageKey, dict[str, float]] | None, list[str]]:
    """Each image's scores averaged over the runs, or None and why there are none."""
    tables = [run.images.get(weights) for run in runs]
    if any(not table for table in tables):
        return None, []  # said once, when the file was read
    first, *others = tables
    if any(set(table) != set(first) for table in others):
        return None, [f"{_folders(runs)}: seeds with different test images; no interval, no test"]
    return {
        key: {column: float(np.mean([table[key][column] for table in tables])) for column in first[key]}
        for key in first
    }, []


def _differences(runs: Sequence[Run]) -> Iterable[str]:
    """What seeds of one mean should have in common, and have not."""
    facts = {
        "epochs": [run.results.epochs for run in runs],
        "base weights": [run.results.checkpoint.base_sha256 for run in runs],
        "trainable parameters": [run.results.trainable for run in runs],
    }
    for name, values in facts.items():
        known = {value for value in values if value is not None}
        if len(known) > 1:
            yield f"{_folders(runs)}: seeds with different {name} in one mean"


def _folders(runs: Sequence[Run]) -> str:
    return ", ".join(str(run.folder) for run in runs)
