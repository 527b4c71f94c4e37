"""Finds the finished runs below a folder and reads their results.json and per_image.csv."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.results import (
    RESULTS_FILE,
    AtSize,
    Images,
    RunResults,
    read_per_image,
    read_results,
)
from report.paper import column_name
from report.rows import RowKey, row_key
from utils.config.options import Size, Weights
from utils.errors import UserError


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, its results, the row and column of the table it belongs to, and its scores by image.

    `images` holds the content of per_image.csv by weights; it is empty where that file cannot be used. `folds` are the
    folds of a cross-validation that were joined into this run (see `report.folds`); () for a single run.
    """

    folder: Path
    results: RunResults
    key: RowKey
    column: str
    images: Mapping[str, Images]
    folds: tuple[int, ...] = ()

    def scores(self, weights: Weights, size: Size) -> AtSize | None:
        """The scores of one set of weights, or None where the run has none (nothing was trained)."""
        scores = self.results.scores(weights)
        return getattr(scores, size) if scores else None


def differing_settings(runs: Sequence[Run]) -> list[str]:
    """The settings that differ between runs, of those that must be the same for one mean."""
    settings: dict[str, set[int | str | None]] = {
        "epochs": {run.results.epochs for run in runs},
        "base weights": {run.results.checkpoint.base_sha256 for run in runs},
        "trainable parameters": {run.results.trainable for run in runs},
    }
    return [name for name, values in settings.items() if len(values - {None}) > 1]


@dataclass(frozen=True)
class Gathered:
    """The runs of a folder.

    Attributes:
        problems: a line for each file that was left out or is incomplete.
        evaluations: how many results.json were written by the command `test`.
    """

    folder: Path
    runs: Sequence[Run]
    problems: Sequence[str]
    evaluations: int = 0

    def left_out(self) -> list[str]:
        """What is missing from the tables, or incomplete."""
        skipped = f"{self.evaluations} results.json written by the test command are no runs and were ignored"
        return [*self.problems, *([skipped] if self.evaluations else [])]


def gather(folder: Path) -> Gathered:
    """Reads every finished run in `folder` and below it, in the order of their paths.

    Runs of one row, dataset and seed that differ in their fold belong to one cross-validation. A damaged file is left
    out and named in `problems`. Of two runs with the same row, dataset, seed and fold the first in path order is used,
    and `problems` names both.

    Raises:
        UserError: no such folder, or no usable run in it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of runs")
    found: dict[tuple[RowKey, str, int, int], Run] = {}
    problems: list[str] = []
    evaluations = 0
    for path in sorted(path for path in folder.rglob(RESULTS_FILE) if path.is_file()):
        try:
            results = read_results(path)
        except UserError as error:
            problems.append(f"{error}; left out")
            continue
        if not isinstance(results, RunResults):
            evaluations += 1
            continue
        images: Mapping[str, Images] = {}
        problem = ""
        try:
            images = read_per_image(path.parent)
        except UserError as error:
            problem = f"{error}; no interval over seeds and no test for this run"
        run = Run(path.parent, results, row_key(results), column_name(results.dataset), images)
        first = found.setdefault((run.key, run.column, results.seed, results.fold), run)
        if first is not run:
            problems.append(
                f"{run.folder}: same method, dataset, seed ({results.seed}) and fold ({results.fold}) as "
                f"{first.folder}; {first.folder} is taken, {run.folder} left out"
            )
        elif problem:
            problems.append(problem)
    if not found:
        reason = f": {problems[0]}" if problems else ""
        raise UserError(f"{folder}: no finished run (a results.json with 'last') in it or below{reason}")
    return Gathered(folder, list(found.values()), problems, evaluations)
