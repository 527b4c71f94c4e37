"""Cells and rows of the table: the runs of one method on one dataset, averaged over their seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.columns import image_column
from evaluation.metrics import PAPER_METRICS, bootstrap_interval
from evaluation.results import ImageKey, Images
from report.gather import Run, differing_settings
from report.paper import PaperRow, PaperScore
from report.rows import RowKey
from utils.config.options import Region, Size, Weights

_TOLERANCE = 1e-4  # of a mean, since per_image.csv has six decimals


@dataclass(frozen=True)
class Score:
    """A metric over the seeds.

    Attributes:
        by_seed: the mean over the test set, of each seed in ascending order.
        mean, std: of `by_seed`; std is the sample standard deviation, None for one seed.
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
    """The scores of one row on one dataset.

    Attributes:
        scores: by metric, of those that the runs have; empty for a missing cell.
        paper: the paper's number, or None.
        runs: one for each seed, in ascending order.
        n: test samples of each run (0 without runs).
        n_empty: the samples with exactly one empty mask, over all seeds.
        dice_by_image: Dice of each sample, averaged over the seeds; None where it is unknown.
        remarks: problems of the runs' files.
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
        """How many seeds the mean is taken over."""
        return len(self.runs)

    def difference(self, metric: str) -> float | None:
        """Our mean minus the paper's number, None where one of them is missing."""
        printed = getattr(self.paper, metric, None)
        score = self.scores.get(metric)
        return score.mean - float(printed) if score and printed else None


@dataclass(frozen=True)
class Row:
    """A row of the table: `key` is None for a row without runs, `paper` is None for one that is not in the paper."""

    label: str
    key: RowKey | None
    paper: PaperRow | None
    cells: dict[str, Cell]
    average: Cell | None = None

    @property
    def runs(self) -> list[Run]:
        """All runs of this row."""
        return [run for cell in self.cells.values() for run in cell.runs]

    @property
    def ranked(self) -> bool:
        """Whether the row may be the best; a row whose prompt is made from the truth may not."""
        return self.key is not None and self.key.prompt not in ("box_oracle", "box", "points")


def make_cell(
    runs: Sequence[Run],
    weights: Weights,
    size: Size,
    paper: PaperScore | None,
    metrics: Sequence[str] = PAPER_METRICS,
    region: Region = "whole",
) -> Cell:
    """Averages the runs of one row and dataset over their seeds; runs without scores of these weights are left out.

    A metric that some of the runs do not have is left out as well.
    """
    runs = sorted((run for run in runs if run.scores(weights, size, region)), key=lambda run: run.results.seed)
    if not runs:
        return Cell({}, paper)
    folders = ", ".join(str(run.folder) for run in runs)
    scored = [scores for run in runs if (scores := run.scores(weights, size, region))]
    tables = [run.images.get(weights, {}) for run in runs]
    remarks = []
    by_image: Images = {}
    if all(tables):  # a file that cannot be used was reported when it was read
        if all(set(table) == set(tables[0]) for table in tables):
            by_image = _mean_by_image(tables)
        else:
            remarks.append(f"{folders}: seeds with different test images; no interval, no test")
    by_metric = {}
    for metric in metrics:
        measures = [measure for at_size in scored if (measure := at_size.measure(metric))]
        if len(measures) < len(runs):
            continue
        means = tuple(measure.mean for measure in measures if measure.mean is not None)
        interval = measures[0].ci95 if len(runs) == 1 else None
        column = image_column(metric, size, region)
        values = [image[column] for image in by_image.values() if column in image]
        if values:
            interval = bootstrap_interval(values)
            # Of each seed by itself: an image may have a value in some seeds alone.
            of_seeds = [np.mean([image[column] for image in t.values() if column in image] or np.nan) for t in tables]
            if not math.isclose(np.nanmean(of_seeds), np.mean(means), rel_tol=_TOLERANCE, abs_tol=_TOLERANCE):
                remarks.append(f"{folders}: per_image.csv and results.json give different means of {metric}")
        by_metric[metric] = Score(means, interval)
    sample_counts = sorted({at_size.n for at_size in scored})
    if len(sample_counts) > 1:
        remarks.append(f"{folders}: seeds with {' and '.join(map(str, sample_counts))} test samples in one mean")
    remarks += [f"{folders}: seeds with different {setting} in one mean" for setting in differing_settings(runs)]
    column = image_column("dice", size, region)
    dice = {key: image[column] for key, image in by_image.items() if column in image} or None
    return Cell(by_metric, paper, runs, sample_counts[0], sum(at_size.n_empty for at_size in scored), dice, remarks)


def average_cell(cells: Sequence[Cell], paper: PaperScore | None) -> Cell:
    """The mean of several datasets' means, without an interval; empty where a dataset is missing.

    It has a standard deviation over the seeds where every dataset has the same seeds.
    """
    if not all(cell.scores for cell in cells):
        return Cell({}, paper)
    same_seeds = len({tuple(run.results.seed for run in cell.runs) for cell in cells}) == 1
    scores = {}
    for metric in [metric for metric in cells[0].scores if all(metric in cell.scores for cell in cells)]:
        of_datasets = [cell.scores[metric] for cell in cells]
        values = [score.by_seed if same_seeds else (score.mean,) for score in of_datasets]
        scores[metric] = Score(tuple(np.mean(values, axis=0).tolist()))
    return Cell(scores, paper, cells[0].runs if same_seeds else ())


def _mean_by_image(tables: Sequence[Images]) -> Images:
    """Each image's scores, averaged over tables that hold the same images, in the columns that all of them have."""
    return {
        key: {
            column: float(np.mean([table[key][column] for table in tables]))
            for column in values
            if all(column in table[key] for table in tables)
        }
        for key, values in tables[0].items()
    }
