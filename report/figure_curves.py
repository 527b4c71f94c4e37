"""Learning curves of several runs in one plot."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from report.cells import Row
from report.drawing import PAGE_WIDTH, Drawn, figure, line_style, save
from report.gather import Run
from report.table import Section, Table
from training.run_folder import RunFolder
from training.run_log import METRICS_FILE, read_metrics, scalars
from utils.config.options import EPOCH_CHOSEN_ON
from utils.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = {"loss/total": "training loss", "train/dice": "training Dice", "val/dice": "validation Dice"}
ON_TEST = f"Dice, epoch chosen on {EPOCH_CHOSEN_ON['test']}"
LEGEND_COLUMNS = 3
Curve = dict[int, float]  # epoch -> value
RowCurves = Mapping[str, Sequence[Curve]]  # key of PANELS -> one curve for each seed


def draw_curves(table: Table, folder: Path) -> Drawn:
    """One figure for each section and dataset: loss, training and validation Dice of every trained row."""
    drawn = Drawn()
    without_log: list[Path] = []
    for suffix, section in table.numbered_sections():
        for column in section.columns:
            curves = {row.label: _row_curves(row, column, drawn.notes, without_log) for row in section.rows}
            curves = {label: of_row for label, of_row in curves.items() if of_row}
            if curves:
                splits = {run.results.val_split for row in section.rows for run in row.cells[column].runs}
                panels = PANELS | ({"val/dice": ON_TEST} if "test" in splits else {})
                _draw(curves, panels, section, column, folder, f"curves_{column}{suffix}", drawn)
    if without_log:
        drawn.notes.append(f"Learning curves: {len(without_log)} runs have no {METRICS_FILE}, such as {without_log[0]}")
    return drawn


def _row_curves(row: Row, column: str, notes: list[str], without_log: list[Path]) -> RowCurves:
    """The curves of a row's runs on one dataset. A run that was trained but has no log joins `without_log`."""
    curves = defaultdict(list)
    for run in row.cells[column].runs:
        if RunFolder(run.folder).metrics.is_file():
            for key, curve in _run_curves(run, notes).items():
                curves[key].append(curve)
        elif run.results.method != "none":
            without_log.append(run.folder)
    return curves


def _run_curves(run: Run, notes: list[str]) -> dict[str, Curve]:
    """The run's curves by key of PANELS."""
    try:
        records = read_metrics(RunFolder(run.folder).metrics)
    except UserError as error:
        notes.append(f"{error}; no learning curve of this run")
        return {}
    curves: dict[str, Curve] = defaultdict(dict)
    for record in records:
        for name, value in scalars(record):
            if name in PANELS:
                curves[name][record["epoch"]] = value
    return curves


def _draw(
    curves: Mapping[str, RowCurves],
    titles: Mapping[str, str],
    section: Section,
    column: str,
    folder: Path,
    name: str,
    drawn: Drawn,
) -> None:
    panels = [key for key in titles if any(key in of_row for of_row in curves.values())]
    with figure(PAGE_WIDTH, 2.3 + 0.17 * ceil(len(curves) / LEGEND_COLUMNS)) as drawing:
        axes = drawing.subplots(1, len(panels), squeeze=False)[0]
        for axis, key in zip(axes, panels, strict=True):
            for index, (label, of_row) in enumerate(curves.items()):
                if key in of_row:
                    _draw_row(axis, of_row[key], label, line_style(index))
            _finish(axis, key, titles[key])
        handles = {label: line for axis in axes for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        ncols = min(LEGEND_COLUMNS, len(handles))
        drawing.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=ncols, frameon=False)
        seeds = max(len(of_seeds) for of_row in curves.values() for of_seeds in of_row.values())
        several = " Thick lines are means over the seeds, thin ones single seeds." if seeds > 1 else ""
        drawn.pictures.append(
            save(
                drawing, folder, name, f"Learning curves: {column}",
                f"{section.title}, {column}: {', '.join(titles.values())}, after each epoch.{several}",
                f"Line plots of {', '.join(titles.values())} over the epochs on {column} for "
                + ", ".join(curves),
            )
        )  # fmt: skip


def _draw_row(axis: "Axes", seeds: Sequence[Curve], label: str, style: dict[str, Any]) -> None:
    """The mean over the seeds, at the epochs that all of them have; also each seed where there are several."""
    if len(seeds) > 1:
        for curve in seeds:
            axis.plot(list(curve), list(curve.values()), linewidth=0.6, alpha=0.45, **style)
    epochs = sorted(set.intersection(*(set(curve) for curve in seeds)))
    mean = [float(np.mean([curve[epoch] for curve in seeds])) for epoch in epochs]
    marker = "o" if len(epochs) < 15 else None
    axis.plot(epochs, mean, label=label, linewidth=1.5, marker=marker, markersize=2.8, **style)


def _finish(axis: "Axes", key: str, title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set(title=title, xlabel="epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axis.grid(True)
    if key != "loss/total":
        axis.set_ylim(bottom=0.0)
    else:
        values = [value for line in axis.get_lines() for value in np.asarray(line.get_ydata(), float)]
        if values and min(values) > 0 and max(values) > 20 * min(values):
            axis.set_yscale("log")
