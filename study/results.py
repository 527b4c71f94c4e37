"""The finished runs of the study, row by row."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np

from evaluation.results import ImageKey
from report.cells import Cell, average_cell, make_cell
from report.gather import Run, gather
from report.rows import RowKey
from study.plan import Study
from training.run_folder import RunFolder
from training.run_log import read_metrics
from utils.config.options import MetricName, Size
from utils.errors import UserError

log = logging.getLogger(__name__)

# The page's, as far as the runs have them.
METRICS: tuple[MetricName, ...] = ("dice", "hd95", "cldice", "sensitivity", "thin_sensitivity", "betti0_error")


@dataclass(frozen=True)
class Result:
    """The finished runs of one row.

    Attributes:
        runs: by dataset, each in ascending order of the seeds; some of `datasets` may be missing.
        datasets: those that the row is run on.
    """

    name: str
    label: str
    trained: bool
    pictured: bool
    runs: Mapping[str, Sequence[Run]]
    datasets: Sequence[str]

    def with_label(self, label: str) -> "Result":
        """The same row with the label of an ablation."""
        return replace(self, label=label)

    def on(self, datasets: Collection[str]) -> "Result":
        """The same row on some of its datasets."""
        runs = {name: runs for name, runs in self.runs.items() if name in datasets}
        return replace(self, runs=runs, datasets=[name for name in self.datasets if name in datasets])

    @property
    def all_runs(self) -> list[Run]:
        """The runs of all datasets."""
        return [run for runs in self.runs.values() for run in runs]

    @property
    def key(self) -> RowKey:
        return self.all_runs[0].key

    @property
    def percent(self) -> float:
        """The percentage of parameters that are trained."""
        return self.all_runs[0].results.percent

    def cell(self, dataset: str, size: Size = "native") -> Cell:
        """The scores of the weights after the last epoch on one dataset; empty without runs."""
        return make_cell(self.runs.get(dataset, ()), "last", size, None, METRICS)

    def average(self, size: Size = "native") -> Cell:
        """The mean of the datasets' scores; empty where one is missing."""
        return average_cell([self.cell(dataset, size) for dataset in self.datasets], None)

    @property
    def seeds(self) -> list[int]:
        """The seeds with a finished run on every dataset."""
        found = [{run.results.seed for run in self.runs.get(dataset, ())} for dataset in self.datasets]
        return sorted(set.intersection(*found))

    def images(self, dataset: str) -> list[ImageKey]:
        """The test images of one dataset, in the same order for all rows."""
        return sorted(self.runs[dataset][0].images["last"])

    @property
    def dice(self) -> np.ndarray:
        """Dice at the images' own size, (seeds, images of all datasets)."""
        by_seed = [{run.results.seed: run.images["last"] for run in self.runs[dataset]} for dataset in self.datasets]
        return np.array(
            [
                [
                    of_dataset[seed][key]["dice_native"]
                    for dataset, of_dataset in zip(self.datasets, by_seed, strict=True)
                    for key in self.images(dataset)
                ]
                for seed in self.seeds
            ]
        )

    def of_seed(self, seed: int) -> np.ndarray:
        """Dice of one of `seeds` at the images' own size, (images of all datasets)."""
        return self.dice[self.seeds.index(seed)]

    @property
    def minutes(self) -> float | None:
        """Minutes of training of a run, the mean over all runs; None for an untrained row."""
        logs = [path for run in self.all_runs if (path := RunFolder(run.folder).metrics).is_file()]
        totals = [sum(float(record["seconds"]) for record in read_metrics(path)) for path in logs]
        return fmean(totals) / 60 if totals else None


def read_results(study: Study, seeds: Sequence[int]) -> dict[str, Result]:
    """The rows and variants with a finished run of one of `seeds`."""
    results = {}
    for name, row in (study.rows | study.variants).items():
        datasets = row.datasets or list(study.datasets)
        runs = {dataset: _finished(study.output / "final" / name / dataset, seeds) for dataset in datasets}
        if found := {dataset: of_dataset for dataset, of_dataset in runs.items() if of_dataset}:
            results[name] = Result(name, row.label, row.trained, row.pictured, found, datasets)
    return results


def _finished(folder: Path, seeds: Sequence[int]) -> list[Run]:
    try:
        gathered = gather(folder)
    except UserError:
        return []
    for problem in gathered.problems:
        log.warning("warning: %s", problem)
    runs = [run for run in gathered.runs if run.results.seed in seeds and run.images]
    return sorted(runs, key=lambda run: run.results.seed)


def shared_dice(results: Sequence[Result]) -> dict[str, np.ndarray]:
    """Dice (seeds, images) of each row at the images' own size, over the seeds that all rows have.

    A row without a seed that has a run on every dataset is left out.
    """
    results = [result for result in results if result.seeds]
    seeds = sorted(set.intersection(*(set(result.seeds) for result in results))) if results else []
    return {result.name: np.array([result.of_seed(seed) for seed in seeds]) for result in results}
