"""Formats numbers, the same for every kind of document."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from evaluation.names import metric_of
from report.cells import Cell, Row
from report.comparison import Comparison
from report.rows import rank_text


@dataclass(frozen=True)
class CellText:
    """The texts of a cell, "" for a missing one.

    Attributes:
        mean: "0.812"; std: "0.004"; seeds: "2 seeds".
        interval: "[0.790, 0.833]".
        paper: "0.81"; difference: "+0.002".
        empty: "3 of 82 with one empty mask", for HD95.
    """

    mean: str = ""
    std: str = ""
    seeds: str = ""
    interval: str = ""
    paper: str = ""
    difference: str = ""
    empty: str = ""


def cell_text(cell: Cell | None, metric: str) -> CellText:
    """The texts of a cell for one metric."""
    if cell is None:
        return CellText()
    decimals = metric_of(metric).decimals
    paper = getattr(cell.paper, metric, None) or ""
    score = cell.scores.get(metric)
    if score is None:
        return CellText(paper=paper)
    difference = cell.difference(metric)
    some_empty = metric == "hd95" and cell.n_empty
    return CellText(
        mean=f"{score.mean:.{decimals}f}",
        std=f"{score.std:.{decimals}f}" if score.std is not None else "",
        seeds=f"{cell.seeds} seed{'s' * (cell.seeds > 1)}" if cell.seeds else "",
        interval="[{:.{d}f}, {:.{d}f}]".format(*score.interval, d=decimals) if score.interval else "",
        paper=paper,
        difference=signed(difference, decimals) if difference is not None else "",
        empty=f"{cell.n_empty} of {cell.n * cell.seeds} with one empty mask" if some_empty else "",
    )


def signed(value: float, decimals: int) -> str:
    """A number with its sign; one that rounds to zero has none."""
    rounded = round(value, decimals)
    return f"{rounded:+.{decimals}f}" if rounded else f"{0:.{decimals}f}"


def p_text(p: float) -> str:
    """A p-value with three decimals, small ones as a bound."""
    return f"{p:.3f}" if p >= 0.001 else "<0.001"


def comparison_text(comparison: Comparison) -> str:
    """ "0.031 (p 0.016, n 7, +0.045)": corrected, uncorrected, pairs, and SALT's lead in Dice."""
    if comparison.test is None or comparison.p_holm is None:
        return comparison.error
    test = comparison.test
    return f"{p_text(comparison.p_holm)} (p {p_text(test.p)}, n {test.n}, {signed(test.difference, 3)})"


def trainable_text(row: Row) -> str:
    """ "3.90% / 9.80M" as measured, "" without a run."""
    runs = row.runs
    if not runs:
        return ""
    percent = _range((run.results.percent for run in runs), lambda value: f"{value:.2f}") + "%"
    return f"{percent} / {_range((run.results.trainable for run in runs), count_text)}"


def paper_trainable_text(row: Row) -> str:
    """ "3.9% / 9.4M" as printed in the paper, "" where it isn't."""
    if row.paper is None:
        return ""
    percent = f"{row.paper.percent}%" if row.paper.percent else ""
    return " / ".join(part for part in (percent, row.paper.trainable) if part)


def count_text(count: float) -> str:
    """9798336 -> "9.80M"; below 100,000 in thousands, below 1,000 as it is."""
    if count >= 100_000:
        return f"{count / 1e6:.2f}M"
    return f"{count / 1e3:.1f}k" if count >= 1000 else f"{count:.0f}"


def ranks_text(row: Row) -> str:
    """The ranks of a row's runs; without a run, the paper's rank."""
    if row.key is not None:
        return rank_text(row.key)
    return row.paper.rank.strip("-") if row.paper else ""


def ranks_beside_label(row: Row) -> str:
    """The ranks of a row's runs where its label does not give the top rank, else ""."""
    ranks = ranks_text(row)
    return ranks if "top" in ranks and "(top" not in row.label else ""


def _range(values: Iterable[float], text: Callable[[float], str]) -> str:
    ordered = sorted(values)
    first, last = text(ordered[0]), text(ordered[-1])
    return first if first == last else f"{first} to {last}"
