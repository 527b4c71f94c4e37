"""The finished runs of the study, row by row."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from evaluation.results import ImageKey
from report.cells import Cell, make_cell
from report.gather import Run, gather
from report.rows import RowKey
from study.plan import Study
from training.run_folder import RunFolder
from training.run_log import read_metrics
from utils.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """The finished runs of one row, in ascending order of their seeds.

    `native` and `at_size` hold the scores of the weights after the last epoch, at the images' own size and at the
    model's.
    """

    name: str
    label: str
    trained: bool
    pictured: bool
    runs: Sequence[Run]
    native: Cell
    at_size: Cell

    def with_label(self, label: str) -> "Result":
        """The same row with the label of an ablation."""
        return replace(self, label=label)

    @property
    def key(self) -> RowKey:
        return self.runs[0].key

    @property
    def percent(self) -> float:
        """The percentage of parameters that are trained."""
        return self.runs[0].results.percent

    @property
    def seeds(self) -> list[int]:
        """The seeds of the finished runs."""
        return [run.results.seed for run in self.runs]

    @property
    def images(self) -> list[ImageKey]:
        """The test images, in the same order for all rows."""
        return sorted(self.runs[0].images["last"])

    @property
    def dice(self) -> np.ndarray:
        """Dice at the images' own size, (seeds, images)."""
        return np.array([[run.images["last"][key]["dice_native"] for key in self.images] for run in self.runs])

    @property
    def seconds(self) -> float | None:
        """Seconds of the fastest epoch of all runs, least disturbed by other work; None for an untrained row."""
        logs = [path for run in self.runs if (path := RunFolder(run.folder).metrics).is_file()]
        return min((float(record["seconds"]) for path in logs for record in read_metrics(path)), default=None)


def read_results(study: Study, seeds: Sequence[int]) -> dict[str, Result]:
    """The rows and variants with a finished run of one of `seeds`."""
    results = {}
    for name, row in (study.rows | study.variants).items():
        try:
            gathered = gather(study.output / "final" / name)
        except UserError:
            continue
        for problem in gathered.problems:
            log.warning("warning: %s", problem)
        runs = [run for run in gathered.runs if run.results.seed in seeds and run.images]
        runs.sort(key=lambda run: run.results.seed)
        if runs:
            native, at_size = make_cell(runs, "last", "native", None), make_cell(runs, "last", "img_size", None)
            results[name] = Result(name, row.label, row.trained, row.pictured, runs, native, at_size)
    return results


def shared_dice(results: Sequence[Result]) -> dict[str, np.ndarray]:
    """Dice (seeds, images) of each row at the images' own size, over the seeds that all rows have."""
    seeds = sorted(set.intersection(*(set(result.seeds) for result in results))) if results else []
    return {result.name: result.dice[[result.seeds.index(seed) for seed in seeds]] for result in results}
