"""Writes the table as CSV: a line for each row, unrounded numbers, columns named by dataset and quantity."""

from typing import Any

from evaluation.columns import image_column
from report.cells import Row
from report.table import Section, Table
from utils.files import csv_text

ROW_COLUMNS = (
    "weights", "size", "section", "method", "paper_row", "arch", "sam_type", "strategy", "ranks", "prompt",
    "text_encoder", "profile", "img_size", "trainable", "percent", "paper_trainable", "paper_percent", "tested_against",
)  # fmt: skip
QUANTITIES = ("", "_std", "_low", "_high", "_paper", "_difference", "_best")
CELL_COLUMNS = ("seeds", "n", "n_empty", "p", "p_holm", "pairs", "salt_minus_this")


def to_csv(table: Table) -> str:
    """One line for each row. Columns of each dataset D: D_dice, D_dice_std, ..., D_hd95, ..., D_seeds, ..., D_p, ...

    `low` and `high` are the ends of the bootstrap interval, `best` is 1 where the table prints bold. `p` is from
    Wilcoxon's test of the section's SALT row (`tested_against`) against this row. An empty value is missing.
    """
    names = list(ROW_COLUMNS)
    for column in dict.fromkeys(column for section in table.sections for column in section.all_columns):
        names += [f"{column}_{_name(table, metric)}{quantity}" for metric in table.metrics for quantity in QUANTITIES]
        if any(column in section.columns for section in table.sections):
            names += [f"{column}_{name}" for name in CELL_COLUMNS]
    records = [
        _row(table, section, row) | _cells(table, section, row) for section in table.sections for row in section.rows
    ]
    return csv_text(names, ([_text(record.get(name)) for name in names] for record in records))


def _row(table: Table, section: Section, row: Row) -> dict[str, Any]:
    key, paper, runs, reference = row.key, row.paper, row.runs, section.tests.reference
    record: dict[str, Any] = {
        "weights": table.weights,
        "size": table.size,
        "section": section.title,
        "method": row.label,
        "tested_against": reference.label if reference and row is not reference else "",
    }
    if paper:
        record |= {"paper_row": paper.name, "paper_trainable": paper.trainable, "paper_percent": paper.percent}
    if key:
        shared = ("arch", "sam_type", "ranks", "prompt", "text_encoder", "profile", "img_size")
        record |= {"strategy": key.method, **{name: getattr(key, name) for name in shared}}
    if runs:
        # The maximum over the datasets: a trained embedding for each label makes them differ by some hundreds.
        record |= {name: max(getattr(run.results, name) for run in runs) for name in ("trainable", "percent")}
    return record


def _name(table: Table, metric: str) -> str:
    """ "dice", or "dice_fov" inside the field of view, so that columns of two tables stay apart."""
    return image_column(metric, region=table.region)


def _cells(table: Table, section: Section, row: Row) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for column in section.all_columns:
        cell = section.cell(row, column)
        if cell is None:
            continue
        for metric in table.metrics:
            score, name = cell.scores.get(metric), f"{column}_{_name(table, metric)}"
            record[f"{name}_paper"] = getattr(cell.paper, metric, None)
            if score:
                low, high = score.interval or (None, None)
                values = (score.mean, score.std, low, high)
                record |= dict(zip((name, f"{name}_std", f"{name}_low", f"{name}_high"), values, strict=True))
                record[f"{name}_difference"] = cell.difference(metric)
                record[f"{name}_best"] = int(section.is_best(row, column, metric))
        if cell.n:
            record |= {f"{column}_seeds": cell.seeds, f"{column}_n": cell.n, f"{column}_n_empty": cell.n_empty}
        comparison = section.tests.of(row, column)
        if comparison and comparison.test:
            record |= {f"{column}_p": comparison.test.p, f"{column}_p_holm": comparison.p_holm}
            record |= {f"{column}_pairs": comparison.test.n, f"{column}_salt_minus_this": comparison.test.difference}
    return record


def _text(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.10g}"
    return "" if value is None else value
