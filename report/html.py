"""The report as one HTML page that needs nothing but itself: tables as text, figures inlined."""

import base64
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from report.drawing import Drawn, Picture
from report.gather import Gathered
from report.numbers import METRICS, cell_text, p_text, paper_trainable_text, ranks_text, signed, trainable_text
from report.table import Table
from report.words import HOW_TO_READ, TITLE, left_out, notes, test_caption

TEMPLATE = "page.html.j2"
SIGNIFICANT = 0.05


def to_html(tables: Sequence[Table], gathered: Gathered, drawn: Drawn, figures: str = "figures") -> str:
    """The page: the first table in full view, the others folded, then figures, notes and the list of runs.

    Args:
        figures: where the figures' PDF files lie, seen from the page; it names them and links nothing.
    """
    # Everything that comes from files is escaped: file names and labels may hold anything.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["tests_of"] = lambda column, section, row: section.tests.of(row, column)
    environment.filters["minus"] = lambda text: text.replace("-", "\N{MINUS SIGN}")
    functions = {f.__name__: f for f in (cell_text, p_text, paper_trainable_text, ranks_text, signed, trainable_text)}
    return environment.get_template(TEMPLATE).render(
        title=TITLE,
        how_to_read=HOW_TO_READ,
        tables=tables,
        metrics=METRICS,
        significant=SIGNIFICANT,
        notes={table.title: notes(table) for table in tables},
        problems=left_out(gathered.problems, gathered.evaluations),
        test_caption=test_caption,
        gathered=gathered,
        drawn=drawn,
        figures=figures,
        inline=_inline,
        megabytes=lambda count: f"{count / 1e6:,.0f} MB" if count else "",
        **functions,
    )


def _inline(picture: Picture) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.png.read_bytes()).decode("ascii")
