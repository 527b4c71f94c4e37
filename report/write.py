"""Writes the report of the command `table`: tables, figures and page, from the runs of a folder."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from evaluation.metrics import PAPER_METRICS
from report.csv_table import to_csv
from report.drawing import Drawn
from report.figure_curves import draw_curves
from report.figure_grid import draw_grid
from report.figure_layer_ranks import draw_layer_ranks
from report.figure_ranks import draw_rank_scatter
from report.figure_spectra import draw_spectra
from report.folds import join_folds
from report.gather import gather
from report.html import to_html
from report.latex import to_latex
from report.markdown import to_markdown
from report.table import Table, build_table
from utils.config.options import Region, Size, Weights
from utils.errors import UserError
from utils.files import write_text

log = logging.getLogger(__name__)

FIGURES = "figures"


@dataclass(frozen=True)
class Report:
    """What was written: the table, the files, and a line for each row with empty cells."""

    table: Table
    files: list[Path]
    missing: list[str]


def write_report(
    runs: Path,
    output: Path,
    weights: Weights = "last",
    size: Size = "img_size",
    metrics: Sequence[str] = PAPER_METRICS,
    region: Region = "whole",
) -> Report:
    """Writes table.md, table.tex, table.csv, index.html and figures/ into `output`.

    The three table files hold the `metrics` of `weights` at `size` in `region`. The page also holds the other
    combinations, each in separate tables; those of the field of view where some run has it. Runs that are left out are
    logged as warnings and listed in the files.

    Raises:
        UserError: no such folder of runs, no finished run in it, or none with a field of view where that is asked for.
    """
    gathered = gather(runs)
    joined, problems = join_folds(gathered.runs)
    gathered = replace(gathered, problems=[*gathered.problems, *problems])
    for problem in gathered.problems:
        log.warning("warning: %s", problem)
    regions = [r for r in get_args(Region) if any(run.scores("last", size, r) for run in joined)]
    if region not in regions:
        raise UserError(f"{runs}: no run has scores inside the field of view; evaluate on a dataset with a folder fov/")
    table = build_table(joined, weights, size, metrics, region)
    left_out = gathered.left_out()
    texts = {
        "table.md": to_markdown(table, left_out),
        "table.tex": to_latex(table, left_out),
        "table.csv": to_csv(table),
    }
    for name, text in texts.items():
        write_text(output / name, text)
    drawn = _draw(table, output / FIGURES)
    for note in drawn.notes:
        log.warning("warning: %s", note)
    others = [
        build_table(joined, w, s, metrics, r)
        for r in regions
        for w in get_args(Weights)
        for s in get_args(Size)
        if (w, s, r) != (weights, size, region)
    ]
    write_text(output / "index.html", to_html([table, *others], gathered, drawn, FIGURES))
    files = [output / name for name in (*texts, "index.html")]
    missing = [f"{section.title}: {line}" for section in table.sections for line in section.missing()]
    return Report(table, files, missing)


def _draw(table: Table, folder: Path) -> Drawn:
    drawn = draw_grid(table, folder)
    drawn.add(draw_rank_scatter(table, folder))
    drawn.add(draw_layer_ranks(table, folder))
    drawn.add(draw_spectra(table, folder))
    drawn.add(draw_curves(table, folder))
    return drawn
