"""data_split.csv: the split (train, val or test) of every image, and its fold of a cross-validation.

Columns imgs and split are required, fold and group optional. In run k of a cross-validation (`data.fold_num: k`) the
images of fold k are the test split, and those of all other folds are the train split. An image without a fold keeps its
split in every run. Column split holds the splits of run 0. Images of one group, such as a patient, belong in one fold.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

from datasets.names import name_problem, output_name
from utils.config.options import Split
from utils.errors import ConfigError, UserError

SPLITS = get_args(Split)
SPLIT_FILE = "data_split.csv"  # in a data set's folder
COLUMNS = ("imgs", "split")
FOLD_COLUMNS = ("fold", "group")


class Row(NamedTuple):
    """One row of the file; `line` counts from 1, the header. Without a fold or group they are ""."""

    line: int
    image: str
    split: str
    fold: str = ""
    group: str = ""


class RowProblem(NamedTuple):
    """An error in one row, and its kind."""

    line: int
    image: str
    kind: str
    message: str


def split_csv(data_cfg: Any) -> Path:
    """Return the split file of a config's `data` section: data_split_csv, or else root_path/data_split.csv."""
    return Path(data_cfg.data_split_csv or Path(data_cfg.root_path) / SPLIT_FILE)


def read_rows(path: Path) -> list[Row]:
    """Return all rows, unchecked. Raises: UserError if the file is missing, not CSV, lacks a column or has no row."""
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: not a readable CSV file (no regular file)")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = [(name or "").strip() for name in reader.fieldnames or ()]
            reader.fieldnames = columns
            if missing := [column for column in COLUMNS if column not in columns]:
                raise UserError(f"{path}: no column {', '.join(missing)}; the header must hold: {','.join(COLUMNS)}")
            rows = []
            for row in reader:
                image, split, fold, group = ((row.get(key) or "").strip() for key in (*COLUMNS, *FOLD_COLUMNS))
                rows.append(Row(reader.line_num, image, split.lower(), fold, group))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; it lists the images, with columns {','.join(COLUMNS)}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a readable CSV file ({error})") from error
    if not rows:
        raise UserError(f"{path}: no rows; list one image a row")
    return rows


def row_problems(rows: list[Row], labels: Sequence[str] = ()) -> Iterator[RowProblem]:
    """Yield the errors of each row: no name, an unknown split or fold, a repeated row, one image in two splits, a name
    that no file system takes, two images that share their files.

    `labels` are the names of the foreground labels; files are written for every image and label.
    """
    seen: dict[str, Row] = {}
    outputs: dict[str, Row] = {}
    for row in rows:
        if not row.image:
            yield RowProblem(row.line, "", "row", "no image name in column imgs")
            continue
        if row.split not in SPLITS:
            message = f"split {row.split!r} of {row.image} is not one of {', '.join(SPLITS)}"
            yield RowProblem(row.line, row.image, "split", message)
            continue
        if row.fold and not _is_fold(row.fold):
            message = f"fold {row.fold!r} of {row.image} is no whole number; number the folds from 0, or leave it empty"
            yield RowProblem(row.line, row.image, "fold", message)
            continue
        if problem := name_problem(row.image, labels):
            yield RowProblem(row.line, row.image, "name", problem)
            continue
        for name in [output_name(row.image, label) for label in labels or ("",)]:
            other = outputs.setdefault(name, row)
            if other.image != row.image:
                message = f"{row.image} and {other.image} of row {other.line} would share {name}; rename one"
                yield RowProblem(row.line, row.image, "name", message)
                break
        first = seen.setdefault(row.image, row)
        if first is not row and (first.split, first.fold) != (row.split, row.fold):
            where, there = (f"fold {r.fold}" if first.split == row.split else r.split for r in (row, first))
            message = f"{row.image} is in {where}, and in {there} by row {first.line}; keep one"
            yield RowProblem(row.line, row.image, "two splits", message)
        elif first is not row:
            message = f"{row.image} repeats row {first.line}; remove one"
            yield RowProblem(row.line, row.image, "duplicate row", message)


def apply_fold(rows: Sequence[Row], fold: int, path: Path) -> list[Row]:
    """Return the rows with the splits of run `fold` of a cross-validation; unchanged if the file has no folds.

    Raises: ConfigError that names `path` and data.fold_num, if the file does not have that fold.
    """
    numbers = sorted({int(row.fold) for row in rows if _is_fold(row.fold)})
    if not numbers and fold == 0:
        return list(rows)
    if not numbers:
        raise ConfigError(
            f"{path}: data.fold_num = {fold}, but there is no column fold; write it with `prepare --folds`, or set 0"
        )
    if fold not in numbers:
        raise ConfigError(f"{path}: data.fold_num = {fold}, but the folds are {', '.join(map(str, numbers))}")
    return [
        row._replace(split="test" if int(row.fold) == fold else "train") if _is_fold(row.fold) else row for row in rows
    ]


def read_split(data_cfg: Any) -> dict[str, list[str]]:
    """Return the image names of each split, in the file's order; a split may be empty.

    Args:
        data_cfg: a config's `data` section (root_path, data_split_csv, fold_num).

    Raises: UserError that names file and row, for the first error; ConfigError if the file does not have the fold.
    """
    return split_names(checked_rows(data_cfg))


def checked_rows(data_cfg: Any) -> list[Row]:
    """Return the rows of a config's split file, with the splits of its fold. Raises: as `read_split`."""
    path = split_csv(data_cfg)
    rows = read_rows(path)
    for problem in row_problems(rows, list(getattr(data_cfg, "label_names", ()))[1:]):
        raise UserError(f"{path}, row {problem.line}: {problem.message}")
    return apply_fold(rows, getattr(data_cfg, "fold_num", 0), path)


def split_names(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Return the image names of each split, in the order of the rows; a split may be empty."""
    return {split: [row.image for row in rows if row.split == split] for split in SPLITS}


def _is_fold(text: str) -> bool:
    return text.isascii() and text.isdecimal()
