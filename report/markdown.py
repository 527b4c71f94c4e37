"""The table as Markdown."""

from collections.abc import Sequence

from report.cells import Row
from report.numbers import METRICS, cell_text, comparison_text, paper_trainable_text, ranks_text, trainable_text
from report.table import Section, Table
from report.words import HOW_TO_READ, TITLE, left_out, notes, test_caption


def to_markdown(table: Table, problems: Sequence[str] = (), evaluations: int = 0) -> str:
    """A heading, how to read it, the tables of each section, what is missing, and notes."""
    lines = [
        f"# {TITLE}",
        "",
        f"{table.title[0].upper()}{table.title[1:]}.",
        "",
        *(f"- {line}" for line in HOW_TO_READ),
    ]
    for section in table.sections:
        lines += ["", f"## {escape(section.title)}"]
        for metric in METRICS:
            lines += ["", f"### {METRICS[metric].direction}", "", *_scores(section, metric)]
        lines += ["", "### Tests", "", escape(test_caption(section))]
        if section.tests.reference:
            lines += ["", *_tests(section)]
        missing = section.missing()
        lines += ["", "### Missing", "", *([f"- {escape(line)}" for line in missing] or ["Nothing."])]
    more = left_out(problems, evaluations) + notes(table)
    if more:
        lines += ["", "## Notes", "", *(f"- {escape(line)}" for line in more)]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """`text` with what Markdown would take for markup escaped."""
    return "".join(f"\\{c}" if c in "\\`*_|<>[]#" else c for c in text)


def _scores(section: Section, metric: str) -> list[str]:
    def line(row: Row) -> list[str]:
        ours, paper = trainable_text(row), paper_trainable_text(row)
        trainable = f"{ours} (paper {paper})" if ours and paper else ours or (f"paper {paper}" if paper else "")
        cells = [_cell(section, row, column, metric) for column in section.all_columns]
        return [escape(row.label), escape(ranks_text(row)), trainable, *cells]

    head = ["Method", "Ranks", "Trainable", *(escape(column) for column in section.all_columns)]
    return _grid(head, [line(row) for row in section.rows])


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
    def cell(row: Row, column: str) -> str:
        comparison = section.tests.of(row, column)
        return escape(comparison_text(comparison)) if comparison else ""

    columns = list(section.tests.by_column)
    others = [row for row in section.rows if any(section.tests.of(row, column) for column in columns)]
    head = ["Against", *(escape(column) for column in columns)]
    return _grid(head, [[escape(row.label), *(cell(row, column) for column in columns)] for row in others])


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
