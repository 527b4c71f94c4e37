"""Writes the table as Markdown."""

from collections.abc import Sequence

from evaluation.names import metric_of
from report.cells import Row
from report.numbers import cell_text, comparison_text, paper_trainable_text, ranks_text, trainable_text
from report.table import Section, Table
from report.words import HOW_TO_READ, TITLE, notes, test_caption


def to_markdown(table: Table, left_out: Sequence[str] = ()) -> str:
    """A heading, how to read the table, each section's tables and missing cells, and notes.

    Args:
        left_out: a line for each file that is not in the table, or incomplete.
    """
    lines = [
        f"# {TITLE}",
        "",
        f"{table.title[0].upper()}{table.title[1:]}.",
        "",
        *(f"- {line}" for line in HOW_TO_READ),
    ]
    for section in table.sections:
        lines += ["", f"## {escape(section.title)}"]
        for metric in table.metrics:
            lines += ["", f"### {metric_of(metric).heading}", "", *_scores(section, metric)]
        lines += ["", "### Tests", "", escape(test_caption(section))]
        if section.tests.by_column:
            lines += ["", *_tests(section)]
        missing = section.missing()
        lines += ["", "### Missing", "", *([f"- {escape(line)}" for line in missing] or ["Nothing."])]
    if remarks := [*left_out, *notes(table)]:
        lines += ["", "## Notes", "", *(f"- {escape(line)}" for line in remarks)]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """`text` with Markdown's special characters escaped."""
    return "".join(f"\\{c}" if c in "\\`*_|<>[]#" else c for c in text)


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table whose cells are Markdown."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _scores(section: Section, metric: str) -> list[str]:
    def line(row: Row) -> list[str]:
        ours, paper = trainable_text(row), paper_trainable_text(row)
        trainable = f"{ours} (paper {paper})" if ours and paper else ours or (f"paper {paper}" if paper else "")
        cells = [_cell(section, row, column, metric) for column in section.all_columns]
        return [escape(row.label), escape(ranks_text(row)), trainable, *cells]

    head = ["Method", "Ranks", "Trainable", *(escape(column) for column in section.all_columns)]
    return markdown_table(head, [line(row) for row in section.rows])


def _cell(section: Section, row: Row, column: str, metric: str) -> str:
    text = cell_text(section.cell(row, column), metric)
    if not text.mean:
        return f"paper {text.paper}" if text.paper else ""
    mean = f"{text.mean} ± {text.std}" if text.std else text.mean
    main = f"**{mean}**" if section.is_best(row, column, metric) else mean
    parts = [f"{main} {text.interval}" if text.interval else main, text.seeds]
    if text.paper:
        parts.append(f"paper {text.paper} ({text.difference})")
    return "; ".join(part for part in [*parts, text.empty] if part)


def _tests(section: Section) -> list[str]:
    head = ["Against", *(escape(column) for column in section.tests.by_column)]
    rows = [
        [escape(row.label), *(escape(comparison_text(c)) if c else "" for c in comparisons)]
        for row in section.rows
        if (comparisons := section.tests.of_row(row))
    ]
    return markdown_table(head, rows)
