"""Shared by all figures: sizes and colours for print, and writing a figure as PNG and PDF."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from utils.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE_WIDTH = 7.2  # inches between the margins of a printed page
PNG_DPI = 220
# Okabe and Ito's colours, which colour-blind readers can tell apart; further lines differ by their dashes.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
DASHES = ("-", "--", ":", "-.")
_RC: dict[Any, Any] = {
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8.0,
    "legend.fontsize": 7.5,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "pdf.fonttype": 42,  # TrueType fonts: text in the PDF stays text
}


@dataclass(frozen=True)
class Picture:
    """A figure on disk, `name`.png and `name`.pdf; `alt` describes it for readers who cannot see it."""

    name: str
    title: str
    caption: str
    alt: str
    png: Path


@dataclass
class Drawn:
    """Figures, and a line for each one that could not be drawn."""

    pictures: list[Picture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, other: "Drawn") -> None:
        """Adds the figures and notes of another."""
        self.pictures += other.pictures
        self.notes += other.notes


@contextmanager
def figure(
    width: float, height: float, layout: Literal["constrained", "compressed"] = "constrained"
) -> Iterator["Figure"]:
    """A figure of that many inches, without display or global state; draw and save it within the block."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_RC):
        drawing = Figure(figsize=(width, height), layout=layout)
        FigureCanvasAgg(drawing)
        yield drawing


def save(drawing: "Figure", folder: Path, name: str, title: str, caption: str, alt: str) -> Picture:
    """Writes `name`.png and `name`.pdf into `folder`."""
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it logs every glyph
    name = file_name(name)
    for axis in drawing.axes:
        for text in (axis.title, axis.xaxis.label, axis.yaxis.label):
            text.set_parse_math(False)  # names of images and labels may hold a $
    with atomic_path(folder / f"{name}.pdf") as temporary:
        # Without a date, the same numbers give the same file.
        drawing.savefig(temporary, format="pdf", dpi=PNG_DPI, metadata={"CreationDate": None})
    png = folder / f"{name}.png"
    with atomic_path(png) as temporary:
        drawing.savefig(temporary, format="png", dpi=PNG_DPI)
    return Picture(name, title, caption, alt, png)


def line_style(index: int) -> dict[str, Any]:
    """Colour and dashes of the index-th line: neighbours differ in both, so that they are told apart in grey too."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": DASHES[(index + index // len(COLOURS)) % len(DASHES)],
    }


def file_name(text: str) -> str:
    """`text` as a file's name: lower case, letters, digits and underscores."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
