"""data_split.csv: which image belongs to train, val or test."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from utils.errors import UserError

SPLITS = ("train", "val", "test")
COLUMNS = ("imgs", "split")


class Row(NamedTuple):
    """One row of the file; `line` counts as an editor does, the header being line 1."""

    line: int
    image: str
    split: str


class RowProblem(NamedTuple):
    """What is wrong with one row, and what kind of wrong it is."""

    line: int
    image: str
    kind: str
    message: str


def split_csv(data_cfg: Any) -> Path:
    """Return the split file of a config's `data` section: data_split_csv, or else the one under root_path."""
    return Path(data_cfg.data_split_csv or Path(data_cfg.root_path) / "data_split.csv")


def read_rows(path: Path) -> list[Row]:
    """Return all rows, unchecked. Raises: UserError if the file is missing, no CSV, lacks a column or has no row."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = [(name or "").strip() for name in reader.fieldnames or ()]
            reader.fieldnames = columns
            if missing := [column for column in COLUMNS if column not in columns]:
                raise UserError(f"{path}: no column {', '.join(missing)}; the header must hold: {','.join(COLUMNS)}")
            rows = [
                Row(reader.line_num, (row["imgs"] or "").strip(), (row["split"] or "").strip().lower())
                for row in reader
            ]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; it lists the images, with columns {','.join(COLUMNS)}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a readable CSV file ({error})") from error
    if not rows:
        raise UserError(f"{path}: no rows; list one image a row")
    return rows


def row_problems(rows: list[Row]) -> Iterator[RowProblem]:
    """Yield what is wrong with each row: no name, an unknown split, a repeated row, one image in two splits."""
    seen: dict[str, Row] = {}
    for row in rows:
        if not row.image:
            yield RowProblem(row.line, "", "row", "no image name in column imgs")
            continue
        if row.split not in SPLITS:
            message = f"split {row.split!r} of {row.image} is none of {', '.join(SPLITS)}"
            yield RowProblem(row.line, row.image, "split", message)
            continue
        first = seen.setdefault(row.image, row)
        if first is not row and first.split != row.split:
            message = f"{row.image} is in {row.split}, and in {first.split} by row {first.line}; keep one"
            yield RowProblem(row.line, row.image, "two splits", message)
        elif first is not row:
            message = f"{row.image} repeats row {first.line}; remove one"
            yield RowProblem(row.line, row.image, "duplicate row", message)


def read_split(data_cfg: Any) -> dict[str, list[str]]:
    """Return the image names of each of train, val and test, in the file's order; a split may be empty.

    Args:
        data_cfg: a config's `data` section (root_path, data_split_csv).

    Raises: UserError that names file and row, at the first problem.
    """
    path = split_csv(data_cfg)
    rows = read_rows(path)
    for problem in row_problems(rows):
        raise UserError(f"{path}, row {problem.line}: {problem.message}")
    return {split: [row.image for row in rows if row.split == split] for split in SPLITS}
