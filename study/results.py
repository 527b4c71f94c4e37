"""The finished runs of the study, row by row."""

import csv
import io
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from report.cells import Cell, make_cell
from report.gather import ImageKey, Run, gather
from report.rows import RowKey
from study.plan import Study
from training.run_log import METRICS_FILE, read_metrics
from utils.errors import UserError

log = logging.getLogger(__name__)

IMAGE_COLUMNS = ("dice_native", "hd95_native", "dice", "hd95")


@dataclass(frozen=True)
class Result:
    """One row's runs over the seeds asked for, those that are finished, by rising seed.

    `at_size` and `native` hold the means and intervals of the weights after the last epoch.
    """

    name: str
    label: str
    trained: bool
    pictured: bool
    runs: Sequence[Run]
    native: Cell
    at_size: Cell

    def called(self, label: str) -> "Result":
        """The same row under another name, as an ablation calls it."""
        return replace(self, label=label)

    @property
    def key(self) -> RowKey:
        return self.runs[0].key

    @property
    def seeds(self) -> list[int]:
        """The seeds that are there."""
        return [run.results.seed for run in self.runs]

    @property
    def images(self) -> list[ImageKey]:
        """The test images, in one order for all rows."""
        return sorted(self.runs[0].images["last"])

    @property
    def dice(self) -> np.ndarray:
        """Dice at the images' own size, (seeds, images)."""
        return np.array([[run.images["last"][key]["dice_native"] for key in self.images] for run in self.runs])

    @property
    def seconds(self) -> float | None:
        """Seconds of the fastest epoch of all runs, which other work on the machine disturbed least; None untrained."""
        epochs = [
            float(record["seconds"])
            for run in self.runs
            if (run.folder / METRICS_FILE).is_file()
            for record in read_metrics(run.folder / METRICS_FILE)
        ]
        return min(epochs) if epochs else None


def read_results(study: Study, seeds: Sequence[int]) -> dict[str, Result]:
    """The rows (variants too) that have a finished run of one of `seeds`."""
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


def per_image_csv(results: Iterable[Result]) -> str:
    """Every test image's scores in every run (weights after the last epoch), as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "seed", "image", "label", *IMAGE_COLUMNS])
    for result in results:
        for run in result.runs:
            for image, label in result.images:
                scores = run.images["last"][image, label]
                numbers = [f"{scores[column]:.6f}" for column in IMAGE_COLUMNS]
                writer.writerow([result.name, run.results.seed, image, label, *numbers])
    return text.getvalue()
