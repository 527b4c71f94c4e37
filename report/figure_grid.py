"""The paper's Fig. 3: for each dataset, one image with its truth and the prediction of each method."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.data import GeneralDataset
from datasets.names import output_name
from evaluation.overlays import FALSE_NEGATIVE, FALSE_POSITIVE, mask_panel
from evaluation.results import ImageKey
from report.cells import Row
from report.drawing import PAGE_WIDTH, Drawn, figure, save
from report.gather import Run
from report.table import Section, Table
from training.run_folder import RunFolder
from utils.config import load_config
from utils.errors import UserError

METHODS_PER_FIGURE = 6
LARGEST_PANEL = 1.25  # inches


@dataclass(frozen=True)
class GridRow:
    """One dataset's sample: image (H, W, 3) uint8, truth (H, W) bool, and each method's (prediction, Dice)."""

    column: str
    sample: ImageKey
    image: np.ndarray
    truth: np.ndarray
    predictions: dict[str, tuple[np.ndarray, float]]


def draw_grid(table: Table, folder: Path) -> Drawn:
    """One figure for each section, several where it has many methods. The sample is the one of SALT's median Dice."""
    drawn = Drawn()
    if table.weights != "last":
        drawn.notes.append("Fig. 3 left out: predictions/ holds those of the weights last alone")
        return drawn
    for suffix, section in table.numbered_sections():
        rows = [row for column in section.columns if (row := _grid_row(section, column, drawn.notes))]
        without = [c for c in section.columns if not any(_run_with_predictions(row, c) for row in section.rows)]
        if without:
            drawn.notes.append(f"Fig. 3, {', '.join(without)} left out: no run has its predictions/")
        methods = [row.label for row in section.rows if any(row.label in of.predictions for of in rows)]
        for start in range(0, len(methods), METHODS_PER_FIGURE):
            part = f"_{start // METHODS_PER_FIGURE + 1}" if len(methods) > METHODS_PER_FIGURE else ""
            some = methods[start : start + METHODS_PER_FIGURE]
            _draw(rows, some, section, folder, f"qualitative{suffix}{part}", drawn)
    return drawn


def _grid_row(section: Section, column: str, notes: list[str]) -> GridRow | None:
    """The sample of one dataset, or None and a note that says why."""
    runs = {row.label: run for row in section.rows if (run := _run_with_predictions(row, column))}
    if not runs:
        return None
    reference = section.tests.reference
    first = runs.get(reference.label) if reference else None
    first = first or next(iter(runs.values()))
    try:
        config = load_config(RunFolder(first.folder).config)
        dataset = GeneralDataset(config, "test", train=False, cache_bytes=0)
    except (UserError, OSError) as error:
        notes.append(f"Fig. 3, {column} left out: {error}")
        return None
    by_key = {(sample.name, sample.label_name): i for i, sample in enumerate(dataset.samples)}
    sample = _median_sample(first, by_key)
    if sample is None:
        notes.append(f"Fig. 3, {column} left out: no image that {first.folder} scored is in its data any more")
        return None
    image, truth = dataset.native_image(by_key[sample]), dataset.native_mask(by_key[sample])
    predictions = {}
    for label, run in runs.items():
        path = RunFolder(run.folder).predictions / output_name(*sample)
        mask = _read_mask(path)
        if mask is None or mask.shape != truth.shape or sample not in run.images["last"]:
            notes.append(f"Fig. 3, {column}, {label}: {path} is missing or of another size")
        else:
            predictions[label] = (mask, run.images["last"][sample]["dice_native"])
    return GridRow(column, sample, image, truth, predictions) if predictions else None


def _run_with_predictions(row: Row, column: str) -> Run | None:
    """The run of the lowest seed that has its predictions."""
    runs = row.cells[column].runs
    return next((run for run in runs if run.images and RunFolder(run.folder).predictions.is_dir()), None)


def _median_sample(run: Run, known: dict[ImageKey, int]) -> ImageKey | None:
    """The sample whose Dice is the (lower) median: neither the method's best nor its worst."""
    images = run.images.get("last", {})
    ordered = sorted((key for key in images if key in known), key=lambda key: (images[key]["dice_native"], key))
    return ordered[(len(ordered) - 1) // 2] if ordered else None


def _read_mask(path: Path) -> np.ndarray | None:
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return np.asarray(image.convert("L")) > 127
    except OSError:
        return None


def prediction_panel(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: right white on black, missed red, false blue; the colours of the overlays."""
    panel = mask_panel(prediction)
    panel[truth & ~prediction] = FALSE_NEGATIVE
    panel[prediction & ~truth] = FALSE_POSITIVE
    return panel


def _draw(
    rows: Sequence[GridRow], methods: Sequence[str], section: Section, folder: Path, name: str, drawn: Drawn
) -> None:
    heads = ["Image", "Truth", *methods]
    side = min(LARGEST_PANEL, (PAGE_WIDTH - 0.3) / len(heads))  # a panel's width in inches
    heights = [side * row.truth.shape[0] / row.truth.shape[1] for row in rows]
    with figure(side * len(heads) + 0.3, sum(heights) + 0.2 * len(rows) + 0.4, "compressed") as drawing:
        axes = drawing.subplots(len(rows), len(heads), squeeze=False, height_ratios=heights)
        for axis, head in zip(axes[0], heads, strict=True):
            axis.set_title(textwrap.fill(head, max(9, int(side * 16))), fontsize=7)
        for row, of_row in zip(rows, axes, strict=True):
            of_row[0].set_ylabel(row.column)
            panels: list[tuple[np.ndarray | None, str]] = [
                (row.image, row.sample[0]),
                (mask_panel(row.truth), row.sample[1]),
            ]
            for method in methods:
                if method in row.predictions:
                    prediction, dice = row.predictions[method]
                    panels.append((prediction_panel(prediction, row.truth), f"Dice {dice:.3f}"))
                else:
                    panels.append((None, "no run"))
            for axis, (panel, text) in zip(of_row, panels, strict=True):
                axis.set(xticks=[], yticks=[])
                axis.spines[:].set_visible(False)
                axis.set_xlabel(_shorten(text, max(10, int(side * 19))), fontsize=6.5)
                if panel is not None:
                    axis.imshow(panel)
        alt = "Grid of pictures. " + "; ".join(
            f"{row.column}, {row.sample[0]}: "
            + ", ".join(f"{m} Dice {row.predictions[m][1]:.3f}" for m in methods if m in row.predictions)
            for row in rows
        )
        drawn.pictures.append(
            save(
                drawing, folder, name, f"Predictions (the paper's Fig. 3): {section.title}",
                "For each dataset the test image whose Dice is the median of SALT's (of the first row's, where there "
                "is no SALT), weights last, lowest seed. White: right; red: missed; blue: false. Dice at the image's "
                "own size.",
                alt,
            )
        )  # fmt: skip


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."
