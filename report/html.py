"""Writes the report as one self-contained HTML page: tables as text, figures inlined."""

import base64
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from evaluation.names import metric_of
from report.comparison import LEVEL
from report.drawing import Drawn, Picture
from report.gather import Gathered
from report.numbers import cell_text, p_text, paper_trainable_text, ranks_beside_label, signed, trainable_text
from report.table import Table
from report.words import HOW_TO_READ, TITLE, notes, test_caption

TEMPLATE = "page.html.j2"


def to_html(tables: Sequence[Table], gathered: Gathered, drawn: Drawn, figures: str = "figures") -> str:
    """The page: the first table, the figures, the other tables (folded), and the list of runs.

    Args:
        figures: the folder of the figures' files relative to the page, which names it without a link.
    """
    # Everything that comes from files is escaped: file names and labels may hold anything.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["minus"] = lambda text: text.replace("-", "\N{MINUS SIGN}")
    helpers = (cell_text, p_text, paper_trainable_text, ranks_beside_label, signed, test_caption, trainable_text)
    return environment.get_template(TEMPLATE).render(
        title=TITLE,
        how_to_read=HOW_TO_READ,
        tables=tables,
        metric_of=metric_of,
        significant=LEVEL,
        notes={table.title: notes(table) for table in tables},
        problems=gathered.left_out(),
        gathered=gathered,
        drawn=drawn,
        figures=figures,
        inline=_inline,
        megabytes=lambda count: f"{count / 1e6:,.0f} MB" if count else "",
        **{helper.__name__: helper for helper in helpers},
    )


def _inline(picture: Picture) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.png.read_bytes()).decode("ascii")
