"""Table 1 as data: sections of rows, which cells are best, and which are missing."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from evaluation.metrics import PAPER_METRICS
from evaluation.names import metric_of
from report.cells import Cell, Row, average_cell, make_cell
from report.comparison import SectionTests, run_tests
from report.gather import Run
from report.paper import DATASETS, SAM2_DATASETS, SAM2_TABLE, TABLE1, PaperRow
from report.rows import RowKey, labels, order
from utils.config.options import Region, Size, Weights

WEIGHTS_WORDS = {"last": "weights after the last epoch (last)", "best_val": "weights of the best epoch (best_val)"}
SIZE_WORDS = {"img_size": "at the model's image size, as in the paper", "native": "at the images' own size"}
REGION_WORDS = {"whole": "", "fov": ", inside the field of view"}


@dataclass(frozen=True)
class Section:
    """Rows that are compared with each other, by bold numbers and by tests.

    `average_title` is the heading of the last column, the mean over the columns `averaged`. Without such a column they
    are "" and ().
    """

    title: str
    columns: Sequence[str]
    averaged: Sequence[str]
    average_title: str
    rows: Sequence[Row]
    tests: SectionTests
    metrics: Sequence[str] = PAPER_METRICS

    @property
    def all_columns(self) -> list[str]:
        """The datasets, and the average where there is one."""
        return [*self.columns, *([self.average_title] if self.averaged else [])]

    @property
    def seeds(self) -> int:
        """How many seeds every number is a mean over; 0 where this differs."""
        counts = {cell.seeds for row in self.rows for cell in row.cells.values() if cell.scores}
        counts |= {row.average.seeds for row in self.rows if row.average and row.average.scores}
        return counts.pop() if len(counts) == 1 else 0

    def cell(self, row: Row, column: str) -> Cell | None:
        """A row's cell; the average's column is `average_title`."""
        return row.average if self.averaged and column == self.average_title else row.cells[column]

    def is_best(self, row: Row, column: str, metric: str) -> bool:
        """Whether no ranked row's number, rounded as it is shown, is better."""
        cells = {r.label: self.cell(r, column) for r in self.rows if r.ranked}
        means = {
            label: round(cell.scores[metric].mean, metric_of(metric).decimals)
            for label, cell in cells.items()
            if cell and metric in cell.scores
        }
        best = max if metric_of(metric).higher_is_better else min
        return row.label in means and means[row.label] == best(means.values())

    def missing(self) -> list[str]:
        """The empty cells, a line a row: "UNETR: no run", "LoRA 4: DIAS, Average" or "LoRA 4: DIAS without cldice"."""
        lines = []
        for row in self.rows:
            cells = {column: self.cell(row, column) for column in self.all_columns}
            empty = [column for column, cell in cells.items() if not (cell and cell.scores)]
            if len(empty) == len(cells):
                lines.append(f"{row.label}: {'no run' if row.key is None else 'no scores of these weights'}")
                continue
            partly = [
                f"{column} without {' and '.join(lacking)}"
                for column, cell in cells.items()
                if cell and cell.scores and (lacking := [name for name in self.metrics if name not in cell.scores])
            ]
            if empty or partly:
                lines.append(f"{row.label}: {', '.join([*empty, *partly])}")
        return lines


@dataclass(frozen=True)
class Table:
    """All sections, for one set of weights, one size, one region, and some metrics."""

    weights: Weights
    size: Size
    sections: Sequence[Section]
    metrics: Sequence[str] = PAPER_METRICS
    region: Region = "whole"

    @property
    def title(self) -> str:
        """The weights, the size and the region."""
        size = SIZE_WORDS[self.size]
        if self.region != "whole":
            size = size.removesuffix(", as in the paper")
        return f"{WEIGHTS_WORDS[self.weights]}, {size}{REGION_WORDS[self.region]}"

    def numbered_sections(self) -> list[tuple[str, Section]]:
        """Each section with a suffix for the names of its figures: "_1", "_2"; "" for a single section."""
        single = len(self.sections) == 1
        return [("" if single else f"_{number}", section) for number, section in enumerate(self.sections, start=1)]

    def remarks(self) -> list[str]:
        """What the numbers alone do not say, each once."""
        cells = [cell for section in self.sections for row in section.rows for cell in row.cells.values()]
        return [
            *dict.fromkeys(remark for cell in cells for remark in cell.remarks),
            *self._chosen_on_test(),
            *self._at_own_size(),
        ]

    def cross_validated(self) -> list[str]:
        """Which numbers are means over folds of a cross-validation, a line for each dataset and set of folds."""
        runs = [run for section in self.sections for row in section.rows for run in row.runs if run.folds]
        found = sorted({(run.column, run.folds) for run in runs})
        return [f"{column}: cross-validation, folds {', '.join(map(str, folds))}" for column, folds in found]

    def _chosen_on_test(self) -> Iterable[str]:
        runs = [run for section in self.sections for row in section.rows for run in row.runs]
        datasets = sorted({run.column for run in runs if run.results.val_split == "test"})
        if self.weights == "best_val" and datasets:
            yield f"best_val: epoch chosen on test images (data.val): {', '.join(datasets)}"

    def _at_own_size(self) -> Iterable[str]:
        rows = [row for section in self.sections for row in section.rows]
        labels = [row.label for row in rows if row.key and row.key.scale == "native"]
        if self.size == "img_size" and labels:
            yield f"scored at the images' own size, which they see (data_transforms.scale: native): {', '.join(labels)}"


def build_table(
    runs: Sequence[Run],
    weights: Weights,
    size: Size,
    metrics: Sequence[str] = PAPER_METRICS,
    region: Region = "whole",
) -> Table:
    """The table of one set of weights at one size, in one region.

    Its sections: all models at 512, SAM2 at 512, then other sizes.

    Args:
        runs: one for each row, dataset and seed; the folds of a cross-validation are joined (`report.folds`).
    """
    names = sorted({run.key.section for run in runs}, key=lambda name: (name != "512", name != "sam2", name.zfill(8)))
    by_name = {name: [run for run in runs if run.key.section == name] for name in names}
    sections = [_section(name, of_name, weights, size, metrics, region) for name, of_name in by_name.items()]
    return Table(weights, size, sections, metrics, region)


def _section(
    name: str, runs: Sequence[Run], weights: Weights, size: Size, metrics: Sequence[str], region: Region
) -> Section:
    keys = sorted({run.key for run in runs}, key=order)
    paper_rows: Sequence[PaperRow] = ()
    paper_columns: Sequence[str] = ()
    if any(key.paper for key in keys):
        paper_rows, paper_columns = (SAM2_TABLE, SAM2_DATASETS) if name == "sam2" else (TABLE1, DATASETS)
    used = {run.column for run in runs}
    columns = [c for c in DATASETS if c in used or c in paper_columns] + sorted(used - set(DATASETS))
    label_of = labels(keys)

    def make_row(label: str, key: RowKey | None, paper: PaperRow | None) -> Row:
        cells = {}
        for column in columns:
            of_cell = [run for run in runs if run.key == key and run.column == column]
            # The paper's numbers are of whole images.
            printed = paper.scores.get(column) if paper and region == "whole" else None
            cells[column] = make_cell(of_cell, weights, size, printed, metrics, region)
        return Row(label, key, paper, cells)

    rows = []
    for paper in paper_rows:
        repeated = [key for key in keys if key.paper == paper.name]
        rows += [make_row(label_of[key], key, paper) for key in repeated] or [make_row(paper.label, None, paper)]
    rows += [make_row(label_of[key], key, None) for key in keys if not key.paper]
    averaged, title = _averaged(columns, rows)
    if averaged:
        rows = [_with_average(row, averaged, region) for row in rows]
    return Section(_title(name, bool(paper_rows)), columns, averaged, title, rows, run_tests(rows, columns), metrics)


def _title(name: str, in_paper: bool) -> str:
    if name == "sam2":
        return "SAM2 at 512 pixels"
    return f"Models at {name} pixels{' (the paper: Table 1)' if in_paper else ''}"


def _averaged(columns: Sequence[str], rows: Sequence[Row]) -> tuple[Sequence[str], str]:
    """The columns to average and the average's title: the paper's five, else those that every row with scores has."""
    if set(DATASETS) <= set(columns):
        return DATASETS, "Average" if len(columns) == len(DATASETS) else "Average of the paper's five"
    filled = [row for row in rows if row.runs]
    shared = [c for c in columns if filled and all(row.cells[c].scores for row in filled)]
    return (shared, f"Average of {', '.join(shared)}") if len(shared) > 1 else ((), "")


def _with_average(row: Row, averaged: Sequence[str], region: Region) -> Row:
    paper = row.paper.average if row.paper and tuple(averaged) == DATASETS and region == "whole" else None
    return replace(row, average=average_cell([row.cells[column] for column in averaged], paper))
