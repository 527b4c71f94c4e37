"""The paper's Fig. 4a: SALT's Dice by its ranks; the area of a circle is the percentage of trained parameters."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING

from report.cells import Row
from report.drawing import COLOURS, PAGE_WIDTH, Drawn, figure, save
from report.rows import RowKey
from report.table import Section, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LARGEST_AREA = 620.0  # points squared
SMALLEST_AREA = 14.0  # a smaller circle would be a dot


def draw_rank_scatter(table: Table, folder: Path) -> Drawn:
    """One figure for each dataset and model with SALT runs of two or more combinations of ranks."""
    drawn = Drawn()
    for suffix, section in table.numbered_sections():
        for column in section.columns:
            groups = _groups(section, column)
            for letter, rows in zip(ascii_lowercase, groups, strict=False):
                name = f"ranks_{column}{suffix}" + (f"_{letter}" if len(groups) > 1 else "")
                _draw(rows, table, section, column, folder, name, drawn)
    if not drawn.pictures:
        drawn.notes.append(
            "Fig. 4a: no two SALT runs of one model and dataset with different ranks; configs/ablation makes them"
        )
    return drawn


def _groups(section: Section, column: str) -> list[list[Row]]:
    """The SALT rows that differ in their ranks alone, where there are several."""
    groups: dict[RowKey, list[Row]] = {}
    for row in section.rows:
        key = row.key
        if key and key.method == "salt" and row.cells[column].scores and _ranks(row)[0] is not None:
            groups.setdefault(replace(key, ranks="", paper="", name="", copy=0), []).append(row)
    return [rows for rows in groups.values() if len({_ranks(row) for row in rows}) > 1]


def _ranks(row: Row) -> tuple[int | None, int]:
    """(top rank, LoRA rank); the top rank is None where it may differ between layers."""
    values = row.key.rank_values if row.key else {}
    top = None if {"rank_pattern", "rank_rule"} & set(values) else values.get("svd_rank_linear")
    return top, int(values.get("r_lora") or 0)


def _draw(
    rows: Sequence[Row], table: Table, section: Section, column: str, folder: Path, name: str, drawn: Drawn
) -> None:
    rows = sorted(rows, key=lambda row: (-(_ranks(row)[0] or 0), _ranks(row)[1]))
    loras = sorted({_ranks(row)[1] for row in rows})
    percents = [max(run.results.percent for run in row.cells[column].runs) for row in rows]
    positions, groups = _positions(rows)
    with figure(min(PAGE_WIDTH, 2.2 + 0.62 * len(rows)), 3.3) as drawing:
        axis = drawing.subplots()
        for row, x, percent in zip(rows, positions, percents, strict=True):
            score = row.cells[column].scores["dice"]
            colour = COLOURS[loras.index(_ranks(row)[1]) % len(COLOURS)]
            area = max(LARGEST_AREA * percent / max(percents), SMALLEST_AREA)
            if score.std:
                axis.errorbar([x], [score.mean], [score.std], color="#8a8a8a", linewidth=0.8, capsize=2, zorder=1)
            axis.scatter([x], [score.mean], s=area, color=colour, edgecolors="white", linewidths=0.8, zorder=2)
            radius = area**0.5 / 2  # points
            offset = (0.7 * radius + 1, 0.7 * radius + 1)
            axis.annotate(f"{percent:.2f}%", (x, score.mean), offset, textcoords="offset points", fontsize=7)
        _finish(axis, [str(_ranks(row)[1]) for row in rows], positions, groups)
        caption = (
            f"{section.title}, {column}, {table.title}: mean Dice of SALT by its ranks. A circle's area is the share "
            "of trained parameters, also written beside it; grey bars are standard deviations over several seeds."
        )
        alt = "Scatter plot. " + "; ".join(
            f"top rank {_ranks(row)[0]}, LoRA rank {_ranks(row)[1]}: Dice {row.cells[column].scores['dice'].mean:.3f}, "
            f"{percent:.2f}% trained"
            for row, percent in zip(rows, percents, strict=True)
        )
        title = f"Ranks of SALT (the paper's Fig. 4a): {column}"
        drawn.pictures.append(save(drawing, folder, name, title, caption, alt))


def _positions(rows: Sequence[Row]) -> tuple[list[float], dict[int, list[float]]]:
    """The x of each row, with a gap where the top rank changes, and the x positions of each top rank."""
    positions: list[float] = []
    groups: dict[int, list[float]] = {}
    for row in rows:
        top = _ranks(row)[0] or 0
        gap = 0.0 if not positions else 1.0 if top in groups else 1.6
        positions.append((positions[-1] if positions else 0.0) + gap)
        groups.setdefault(top, []).append(positions[-1])
    return positions, groups


def _finish(axis: "Axes", ticks: Sequence[str], positions: Sequence[float], groups: dict[int, list[float]]) -> None:
    axis.set_xticks(positions, ticks)
    axis.set_xlim(positions[0] - 0.7, positions[-1] + 1.0)
    axis.margins(y=0.2)
    axis.set(ylabel="Dice", xlabel="LoRA rank, below it the top rank (scaled singular values)")
    axis.xaxis.labelpad = 16
    for top, of_top in groups.items():
        middle = (of_top[0] + of_top[-1]) / 2
        axis.annotate(
            f"top {top}", (middle, 0), (0, -21), xycoords=("data", "axes fraction"), textcoords="offset points",
            ha="center", va="center", fontweight="bold",
        )  # fmt: skip
    axis.grid(True, axis="y")
