"""Finds the finished runs below a folder and reads their results.json and per_image.csv."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
from report.settings import Settings, read_settings
from training.run_folder import RunFolder
from utils.config.options import Region, Size, Weights
from utils.errors import UserError


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, its results, the row and column of the table it belongs to, and its scores by image.

    `images` holds the content of per_image.csv by weights; it is empty where that file cannot be used. `settings` are
    those of its config; None where they are unknown. `folds` are the folds of a cross-validation that were joined into
    this run (see `report.folds`); () for a single run.
    """

    folder: Path
    results: RunResults
    key: RowKey
    column: str
    images: Mapping[str, Images]
    settings: Settings | None = None
    folds: tuple[int, ...] = ()

    def scores(self, weights: Weights, size: Size, region: Region = "whole") -> AtSize | None:
        """The scores of one set of weights; None where the run has none: nothing was trained, or no field of view."""
        scores = self.results.scores(weights)
        at_size: AtSize | None = getattr(scores, size, None)
        return at_size.region(region) if at_size else None


def differing_settings(runs: Sequence[Run]) -> list[str]:
    """The settings that differ between runs, of those that must be the same for one mean."""
    # A run that training.patience ended has fewer epochs than others of its row.
    patient = any((run.settings or {}).get("training.patience") for run in runs)
    cut = any(run.results.rank_cut for run in runs)  # each run chooses its own ranks
    settings: dict[str, set[int | str | None]] = {
        "epochs": set() if patient else {run.results.epochs for run in runs},
        "base weights": {run.results.checkpoint.base_sha256 for run in runs},
        "trainable parameters": set() if cut else {run.results.trainable for run in runs},
    }
    return [name for name, values in settings.items() if len(values - {None}) > 1]


@dataclass(frozen=True)
class Gathered:
    """The runs of a folder.

    Attributes:
        problems: a line for each file that was left out or is incomplete.
        evaluations: how many results.json were written by the command `test`.
        unfinished: the folders of runs without results.
    """

    folder: Path
    runs: Sequence[Run]
    problems: Sequence[str]
    evaluations: int = 0
    unfinished: Sequence[Path] = ()

    def left_out(self) -> list[str]:
        """What is missing from the tables, or incomplete."""
        skipped = f"{self.evaluations} results.json written by the test command are no runs and were ignored"
        unfinished = (
            f"{len(self.unfinished)} runs are not finished, such as {self.unfinished[0]}" if self.unfinished else ""
        )
        return [*self.problems, *([skipped] if self.evaluations else []), *([unfinished] if unfinished else [])]


def gather(folder: Path) -> Gathered:
    """Reads every finished run in `folder` and below it, in the order of their paths.

    Runs of one row, dataset and seed that differ in their fold belong to one cross-validation. A damaged file is left
    out and named in `problems`. Runs that differ in their settings have rows of their own (see `told_apart`).

    Raises:
        UserError: no such folder, or no usable run in it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of runs")
    found: list[Run] = []
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
        found.append(_read_run(RunFolder(path.parent), results, problems))
    if not found:
        reason = f": {problems[0]}" if problems else ""
        raise UserError(f"{folder}: no finished run (a results.json with 'last') in it or below{reason}")
    runs, same = told_apart(found)
    unfinished = [path.parent for path in sorted(folder.rglob(RunFolder(folder).config.name))]
    unfinished = [path for path in unfinished if RunFolder(path).status in ("begun", "unfinished")]
    return Gathered(folder, runs, [*problems, *same], evaluations, unfinished)


def told_apart(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """The runs in their order, each with what tells it apart in its row's key; and a line for each further copy.

    A key of the config tells the runs of a row apart where it differs between runs on the same dataset: lr, loss,
    augmentation. Runs with the same dataset, seed and fold that are the same in that too are numbered (`RowKey.copy`).
    """
    by_key: dict[RowKey, list[Run]] = defaultdict(list)
    for run in runs:
        by_key[run.key].append(run)
    varying = {key: _varying(of_key) for key, of_key in by_key.items()}
    first: dict[Any, list[Run]] = defaultdict(list)
    problems, result = [], []
    for run in runs:
        names = varying[run.key]
        values = {name: run.settings.get(name) for name in names} if run.settings is not None else None
        key = replace(run.key, settings=json.dumps(values, sort_keys=True) if names else "")
        same = first[key, run.column, run.results.seed, run.results.fold]
        if same:
            problems.append(
                f"{run.folder}: same method, settings, dataset, seed ({run.results.seed}) and fold "
                f"({run.results.fold}) as {same[0].folder}; it has a row of its own"
            )
        result.append(replace(run, key=replace(key, copy=len(same))))
        same.append(run)
    return result, problems


def _varying(runs: Sequence[Run]) -> list[str]:
    """The keys that differ between runs on the same dataset."""
    known = [{**run.settings, "": run.column} for run in runs if run.settings is not None]
    names = {name for settings in known for name in settings}
    pairs = {(settings[""], name, json.dumps(settings.get(name))) for settings in known for name in names}
    values = Counter((column, name) for column, name, _ in pairs)
    return sorted({name for (_, name), count in values.items() if count > 1})


def _read_run(folder: RunFolder, results: RunResults, problems: list[str]) -> Run:
    """The run of these results; what cannot be used of its other files joins `problems`."""
    images: Mapping[str, Images] = {}
    settings = None
    try:
        images = read_per_image(folder.path)
    except UserError as error:
        problems.append(f"{error}; no interval over seeds and no test for this run")
    try:
        settings = read_settings(folder, results.weights)
    except UserError as error:
        problems.append(f"{error}; the settings of this run are unknown")
    name = folder.row.read_text(encoding="utf-8", errors="replace").strip() if folder.row.is_file() else ""
    key = replace(row_key(results, settings), name=name)
    return Run(folder.path, results, key, column_name(results.dataset), images, settings)
