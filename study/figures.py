"""The study's figures: how the methods learn, what they predict, and the ablations."""

import tempfile
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from report.cells import Row
from report.comparison import run_tests
from report.drawing import COLOURS, PAGE_WIDTH, figure, line_style, save
from report.figure_grid import draw_grid
from report.table import Section, Table
from study.choice import Choice, choice_folder
from study.plan import Study
from study.results import Result
from training.run_folder import RunFolder
from training.run_log import read_metrics
from utils.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = 128  # colours of a picture with photographs, which makes its file three times smaller
PIXELS = 1400  # width of a picture


def family_section(title: str, results: Sequence[Result]) -> Section:
    """Rows of one family at the images' own size, as a section of a report."""
    rows = [Row(r.label, r.key, None, {dataset: r.cell(dataset) for dataset in r.datasets}) for r in results]
    columns = results[0].datasets if results else []
    return Section(title, columns, (), "", rows, run_tests(rows, columns))


def draw_predictions(name: str, title: str, results: Sequence[Result], folder: Path) -> list[Path]:
    """The test image of each dataset whose Dice is SALT's median, with the predictions of the `pictured` rows."""
    section = family_section(title, [result for result in results if result.pictured])
    with tempfile.TemporaryDirectory() as temporary:
        drawn = draw_grid(Table("last", "native", [section]), Path(temporary))
        return [
            _shrink(picture.png, folder / f"predictions_{name}{f'_{i}' if i else ''}.png", PALETTE)
            for i, picture in enumerate(drawn.pictures)
        ]


def draw_learning(
    name: str, study: Study, results: Sequence[Result], choices: Sequence[Choice], folder: Path
) -> Path | None:
    """Training Dice by epoch, validation Dice by epoch with the chosen rate, and validation Dice by learning rate.

    The curves are those of the first dataset that learning rates were chosen on.
    """
    dataset = study.choice_datasets[0]
    tuned = {choice.row: choice for choice in choices}
    rows = [result for result in results if result.name in tuned and dataset in result.runs]
    if not rows:
        return None
    with figure(PAGE_WIDTH, 2.5 + 0.17 * ceil(len(rows) / 4)) as drawing:
        training, validation, rates = drawing.subplots(1, 3)
        for index, result in enumerate(rows):
            style, choice = line_style(index), tuned[result.name]
            curves = [_curve(run.folder, "train") for run in result.runs[dataset]]
            _plot(training, curves, result.label, style)
            _plot(validation, [_curve(choice_folder(study, result.name, choice.best, dataset), "val")], "", style)
            rates.plot(list(choice.dice), list(choice.dice.values()), marker="o", markersize=2.5, linewidth=1, **style)
            rates.plot([choice.best], [choice.dice[choice.best]], marker="o", markersize=5, color=style["color"])
        training.set(title=f"training Dice on {dataset}, mean over seeds", xlabel="epoch")
        validation.set(title=f"images of {dataset} set aside", xlabel="epoch, with the chosen rate")
        rates.set(title="Dice of the images set aside", xlabel="learning rate (large: chosen)", xscale="log")
        for axis in (training, validation, rates):
            axis.grid(True)
        drawing.legend(loc="outside lower center", ncols=4, frameon=False)
        return save_for_page(drawing, folder / f"learning_{name}.png")


def draw_ablations(panels: Sequence[tuple[str, Sequence[Result]]], folder: Path) -> Path | None:
    """A panel for each ablation (title, rows): Dice of each seed (small), their mean (large), and the trained share."""
    if not panels:
        return None
    heights = [0.6 + 0.24 * len(rows) for _, rows in panels]
    with figure(PAGE_WIDTH, sum(heights) + 0.3) as drawing:
        axes = drawing.subplots(len(panels), 1, height_ratios=heights, sharex=True, squeeze=False)[:, 0]
        for axis, (title, rows) in zip(axes, panels, strict=True):
            for place, result in enumerate(rows):
                means = result.dice.mean(axis=1)
                colour = COLOURS[0] if place else COLOURS[1]
                axis.plot(means, [place] * len(means), "o", markersize=3, color=colour, alpha=0.5)
                axis.plot([means.mean()], [place], "D", markersize=5.5, color=colour)
            share = [f"{result.label} ({result.percent:.1f}%)" for result in rows]
            axis.set_yticks(range(len(rows)), share)
            axis.set_ylim(len(rows) - 0.5, -0.5)
            axis.set_title(title, loc="left")
            axis.grid(True, axis="x")
        axes[-1].set_xlabel("Dice of the test images at their own size: single seeds small, their mean large")
        return save_for_page(drawing, folder / "ablations.png")


def save_for_page(drawing: "Figure", path: Path) -> Path:
    """Writes a drawing to `path` at the page's width, with its colours unchanged."""
    with tempfile.TemporaryDirectory() as temporary:
        return _shrink(save(drawing, Path(temporary), path.stem, "", "", "").png, path)


def _curve(folder: Path, part: str) -> dict[int, float]:
    """ "train" or "val" Dice by epoch, of the epochs that have it."""
    records = read_metrics(RunFolder(folder).metrics)
    return {int(record["epoch"]): float(record[part]["dice"]) for record in records if part in record}


def _plot(axis: "Axes", curves: Sequence[dict[int, float]], label: str, style: dict[str, Any]) -> None:
    """The mean of curves with the same epochs."""
    mean = np.mean([list(curve.values()) for curve in curves], axis=0)
    axis.plot(list(curves[0]), mean, label=label or None, linewidth=1.2, **style)


def _shrink(source: Path, path: Path, palette: int | None = None) -> Path:
    """Writes a picture for the page, at most `PIXELS` wide. With a palette, thin lines may change their colours."""
    with Image.open(source) as image:
        picture = image.convert("RGB")
        picture.thumbnail((PIXELS, 10 * PIXELS))
        if palette:
            picture = picture.quantize(palette, dither=Image.Dither.NONE)
    with atomic_path(path) as temporary:
        picture.save(temporary, optimize=True)
    return path
