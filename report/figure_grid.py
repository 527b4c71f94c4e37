"""The paper's Fig. 3: a row a dataset, and image, truth and each method's prediction beside each other."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from datasets.data import GeneralDataset
from evaluation.overlays import HIT, MISSED, overlay_name
from experiments.experiment import PREDICTIONS
from report.cells import Row
from report.drawing import PAGE_WIDTH, Drawn, figure, save
from report.gather import ImageKey, Run
from report.table import Section, Table
from utils.config import load_config
from utils.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS_A_FIGURE = 6
GAP, LABEL_WIDTH, TEXT_HEIGHT, LINE_HEIGHT = 0.05, 0.26, 0.17, 0.12  # inches


@dataclass(frozen=True)
class GridRow:
    """One dataset's sample: image (H, W, 3) uint8, truth (H, W) bool, and by method its prediction and Dice."""

    column: str
    sample: ImageKey
    image: np.ndarray
    truth: np.ndarray
    predictions: dict[str, tuple[np.ndarray, float]]


def draw_grid(table: Table, folder: Path) -> Drawn:
    """A figure for each section, more where its methods do not fit one; the sample is the median one of SALT's."""
    drawn = Drawn()
    if table.weights != "last":
        drawn.notes.append("Fig. 3 left out: predictions/ holds those of the weights last alone")
        return drawn
    for number, section in enumerate(table.sections, start=1):
        rows = [row for column in section.columns if (row := _grid_row(section, column, drawn.notes))]
        without = [c for c in section.columns if not any(_run_with_predictions(row, c) for row in section.rows)]
        if without:
            drawn.notes.append(f"Fig. 3, {', '.join(without)} left out: no run has its {PREDICTIONS}/")
        methods = [row.label for row in section.rows if any(row.label in of.predictions for of in rows)]
        for start in range(0, len(methods), METHODS_A_FIGURE):
            parts = [f"qualitative{f'_{number}' if len(table.sections) > 1 else ''}"]
            parts += [str(start // METHODS_A_FIGURE + 1)] if len(methods) > METHODS_A_FIGURE else []
            _draw(rows, methods[start : start + METHODS_A_FIGURE], section, folder, "_".join(parts), drawn)
    return drawn


def _grid_row(section: Section, column: str, notes: list[str]) -> GridRow | None:
    """The sample of one dataset, or None and a note."""
    runs = {row.label: run for row in section.rows if (run := _run_with_predictions(row, column))}
    if not runs:
        return None
    reference = section.tests.reference
    first = runs.get(reference.label) if reference else None
    first = first or next(iter(runs.values()))
    try:
        config = load_config(first.folder / "config.yaml")
        dataset = GeneralDataset(config, "test", train=False, cache_bytes=0)
    except (UserError, OSError) as error:
        notes.append(f"Fig. 3, {column} left out: {error}")
        return None
    by_key = {(sample.name, sample.label_name): i for i, sample in enumerate(dataset.samples)}
    sample = _median_sample(first, by_key)
    if sample is None:
        notes.append(
            f"Fig. 3, {column} left out: none of the images that {first.folder} scored is in its data any more"
        )
        return None
    image, truth = dataset.native_image(by_key[sample]), dataset.native_mask(by_key[sample])
    predictions = {}
    for label, run in runs.items():
        path = _prediction_file(run, sample)
        mask = _read_mask(path)
        if mask is None or mask.shape != truth.shape or sample not in run.images["last"]:
            notes.append(f"Fig. 3, {column}, {label}: {path} is missing or of another size")
        else:
            predictions[label] = (mask, run.images["last"][sample]["dice_native"])
    return GridRow(column, sample, image, truth, predictions) if predictions else None


def _run_with_predictions(row: Row, column: str) -> Run | None:
    """The run of the lowest seed that kept its predictions."""
    return next((run for run in row.cells[column].runs if run.images and (run.folder / PREDICTIONS).is_dir()), None)


def _median_sample(run: Run, known: dict[ImageKey, int]) -> ImageKey | None:
    """The sample whose Dice is the (lower) median: neither the best nor the worst that the method does."""
    images = run.images.get("last", {})
    ordered = sorted((key for key in images if key in known), key=lambda key: (images[key]["dice_native"], key))
    return ordered[(len(ordered) - 1) // 2] if ordered else None


def _prediction_file(run: Run, sample: ImageKey) -> Path:
    return run.folder / PREDICTIONS / overlay_name(*sample)


def _read_mask(path: Path) -> np.ndarray | None:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("L")) > 127
    except OSError:
        return None


def prediction_panel(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: prediction white on black, missed truth red."""
    panel = np.zeros((*truth.shape, 3), np.uint8)
    panel[prediction] = HIT
    panel[truth & ~prediction] = MISSED
    return panel


def _draw(
    rows: Sequence[GridRow], methods: Sequence[str], section: Section, folder: Path, name: str, drawn: Drawn
) -> None:
    columns = ["Image", "Truth", *methods]
    side = min(1.25, (PAGE_WIDTH - LABEL_WIDTH) / len(columns) - GAP)  # a panel's width
    heights = [side * row.truth.shape[0] / row.truth.shape[1] for row in rows]
    heads = ["\n".join(textwrap.wrap(title, max(9, int(side * 16)))) for title in columns]
    head_height = 0.1 + LINE_HEIGHT * max(head.count("\n") + 1 for head in heads)
    width = LABEL_WIDTH + len(columns) * (side + GAP)
    height = head_height + sum(heights) + len(rows) * (TEXT_HEIGHT + GAP)
    with figure(width, height, constrained=False) as drawing:
        bottom = height - head_height
        for index, head in enumerate(heads):
            _text(drawing, LABEL_WIDTH + index * (side + GAP) + side / 2, bottom + 0.05, head, size=7, va="bottom")
        for row, panel_height in zip(rows, heights, strict=True):
            bottom -= panel_height
            _text(drawing, LABEL_WIDTH / 2, bottom + panel_height / 2, row.column, size=8, rotation=90, va="center")
            panels = [(row.image, row.sample[0]), (_white(row.truth), row.sample[1])]
            panels += [
                (prediction_panel(mask, row.truth), f"Dice {dice:.3f}") if mask is not None else (None, "no run")
                for mask, dice in (row.predictions.get(method, (None, 0.0)) for method in methods)
            ]
            for index, (panel, text) in enumerate(panels):
                left = LABEL_WIDTH + index * (side + GAP)
                axis = drawing.add_axes((left / width, bottom / height, side / width, panel_height / height))
                axis.set_axis_off()
                if panel is not None:
                    axis.imshow(panel, aspect="auto")
                shown = (
                    textwrap.shorten(text, max(10, int(side * 19)), placeholder="...") if panel is not None else text
                )
                _text(drawing, left + side / 2, bottom - 0.03, shown, size=6.5, va="top")
            bottom -= TEXT_HEIGHT + GAP
        alt = "Grid of pictures. " + "; ".join(
            f"{row.column}, {row.sample[0]}: "
            + ", ".join(f"{m} Dice {row.predictions[m][1]:.3f}" for m in methods if m in row.predictions)
            for row in rows
        )
        drawn.pictures.append(
            save(
                drawing, folder, name, f"Predictions (the paper's Fig. 3): {section.title}",
                "For each dataset the test image whose Dice is the median of SALT's (of the first row's, where there "
                "is no SALT), weights last, lowest seed. White: predicted; red: missed; Dice at the image's own size.",
                alt,
            )
        )  # fmt: skip


def _white(mask: np.ndarray) -> np.ndarray:
    return np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * 255


def _text(drawing: "Figure", x: float, y: float, text: str, *, size: float, va: str, rotation: float = 0) -> None:
    """Text at inches from the lower left corner."""
    width, height = drawing.get_size_inches()
    drawing.text(x / width, y / height, text, fontsize=size, ha="center", va=va, rotation=rotation)
