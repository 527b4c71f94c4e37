"""Learning curves of several runs in one plot."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from report.cells import Row
from report.drawing import PAGE_WIDTH, Drawn, figure, line_style, save
from report.gather import Run
from report.table import Section
from training.run_log import METRICS_FILE, read_metrics, scalars
from utils.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = (("loss/total", "training loss"), ("train/dice", "training Dice"), ("val/dice", "validation Dice"))
Curve = dict[int, float]  # epoch -> value


def draw_curves(sections: Sequence[Section], folder: Path) -> Drawn:
    """One figure for each section and dataset: loss, training and validation Dice of every row that was trained."""
    drawn = Drawn()
    without: list[Path] = []
    for number, section in enumerate(sections, start=1):
        for column in section.columns:
            curves = {row.label: found for row in section.rows if (found := _curves(row, column, drawn.notes, without))}
            if curves:
                suffix = f"_{number}" if len(sections) > 1 else ""
                _draw(curves, section, column, folder, f"curves_{column}{suffix}", drawn)
    if without:
        drawn.notes.append(f"Learning curves: {len(without)} runs have no {METRICS_FILE}, such as {without[0]}")
    return drawn


def _curves(row: Row, column: str, notes: list[str], without: list[Path]) -> dict[str, list[Curve]]:
    """{key of PANELS: a curve a seed} of a row's runs on one dataset."""
    found: dict[str, list[Curve]] = {}
    for run in row.cells[column].runs:
        for key, curve in _read(run, notes, without).items():
            found.setdefault(key, []).append(curve)
    return found


def _read(run: Run, notes: list[str], without: list[Path]) -> dict[str, Curve]:
    """The run's curves by key of PANELS; a run that trained but has no log joins `without`."""
    path = run.folder / METRICS_FILE
    if not path.is_file():
        if run.results.method != "none":
            without.append(run.folder)
        return {}
    curves: dict[str, Curve] = {}
    try:
        records = read_metrics(path)
    except UserError as error:
        notes.append(f"{error}; no learning curve of this run")
        return {}
    for record in records:
        for name, value in scalars(record):
            if name in dict(PANELS):
                curves.setdefault(name, {})[record["epoch"]] = value
    return curves


def _draw(
    curves: dict[str, dict[str, list[Curve]]], section: Section, column: str, folder: Path, name: str, drawn: Drawn
) -> None:
    panels = [(key, title) for key, title in PANELS if any(key in of_row for of_row in curves.values())]
    if not panels:
        return
    rows_of_legend = -(-len(curves) // 3)
    with figure(PAGE_WIDTH, 2.3 + 0.17 * rows_of_legend) as drawing:
        axes = drawing.subplots(1, len(panels), squeeze=False)[0]
        for axis, (key, title) in zip(axes, panels, strict=True):
            for index, (label, of_row) in enumerate(curves.items()):
                _lines(axis, of_row.get(key, []), label, line_style(index))
            _finish(axis, title)
        handles = {label: line for axis in axes for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        drawing.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=min(3, len(handles)), frameon=False
        )
        seeds = max(len(seeds) for of_row in curves.values() for seeds in of_row.values())
        several = " Thick lines are means over the seeds, thin ones single seeds." if seeds > 1 else ""
        drawn.pictures.append(
            save(
                drawing, folder, name, f"Learning curves: {column}",
                f"{section.title}, {column}: training loss, Dice of the training batches and of the validation images "
                f"after each epoch.{several}",
                f"Line plots of training loss, training Dice and validation Dice over the epochs on {column} for "
                + ", ".join(curves),
            )
        )  # fmt: skip


def _lines(axis: "Axes", seeds: Sequence[Curve], label: str, style: dict[str, str]) -> None:
    if not seeds:
        return
    shared = sorted(set.intersection(*(set(curve) for curve in seeds)))
    if len(seeds) > 1:
        for curve in seeds:
            axis.plot(list(curve), list(curve.values()), linewidth=0.6, alpha=0.45, **style)
    mean = [float(np.mean([curve[epoch] for curve in seeds])) for epoch in shared]
    marker = "o" if len(shared) < 15 else None
    axis.plot(shared, mean, label=label, linewidth=1.5, marker=marker, markersize=2.8, **style)


def _finish(axis: "Axes", title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set(title=title, xlabel="epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axis.grid(True)
    if title.endswith("Dice"):
        axis.set_ylim(bottom=0.0)
    else:
        lines = [value for line in axis.get_lines() for value in np.asarray(line.get_ydata(), float)]
        if lines and min(lines) > 0 and max(lines) > 20 * min(lines):
            axis.set_yscale("log")
