"""Writes the table as LaTeX with booktabs: a file to \\input."""

from collections.abc import Sequence

from evaluation.names import metric_of
from report.cells import Row
from report.numbers import cell_text, comparison_text, paper_trainable_text, ranks_beside_label, trainable_text
from report.table import Section, Table
from report.words import notes, test_caption

_SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$", "[": "{[}", "]": "{]}",
} | {c: f"\\{c}" for c in "&%$#_{}"}  # fmt: skip
_NEW_LINE = r" \\ "
_PREAMBLE = r"""% Needs \usepackage{booktabs} and \usepackage{graphicx} in the preamble.
% A cell: mean $\pm$ standard deviation over the seeds (number of seeds); 95\% bootstrap interval over the images;
% the paper's number (ours minus the paper's). Bold: the best of a column.
\providecommand{\stacked}[2][c]{\begin{tabular}[t]{@{}#1@{}}#2\end{tabular}}"""


def to_latex(table: Table, left_out: Sequence[str] = ()) -> str:
    """Floats for each section: one a metric, and tests. Missing cells and notes are comments.

    Args:
        left_out: a line for each file that is not in the table, or incomplete.
    """
    parts = [_PREAMBLE]
    for number, section in enumerate(table.sections, start=1):
        title = f"{section.title}. {table.title[0].upper()}{table.title[1:]}."
        label = f"{table.weights}-{table.size}-{'' if table.region == 'whole' else 'fov-'}{number}".replace("_", "-")
        for metric in table.metrics:
            caption = f"{metric_of(metric).heading}. {title}"
            head = ["Method", "Trainable", *section.all_columns]
            parts.append(_float(caption, f"{metric.replace('_', '-')}-{label}", "ll", head, _rows(section, metric)))
        if section.tests.by_column:
            head = ["Against", *section.tests.by_column]
            parts.append(_float(test_caption(section), f"tests-{label}", "l", head, _tests(section)))
        parts.append("\n".join(_comment(f"missing: {line}") for line in section.missing()))
    parts.append("\n".join(_comment(f"note: {line}") for line in [*left_out, *notes(table)]))
    return "\n\n".join(part for part in parts if part) + "\n"


def escape(text: str) -> str:
    """`text` with LaTeX's special characters escaped."""
    return "".join(_SPECIAL.get(c, c) for c in text)


def _comment(text: str) -> str:
    return "% " + " ".join(text.split())


def _float(caption: str, label: str, left: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    body = [f"    {' & '.join(cells)} \\\\ \\addlinespace" for cells in rows]
    return "\n".join(
        [
            r"\begin{table*}[t]",
            r"  \centering",
            f"  \\caption{{{escape(caption)}}}",
            f"  \\label{{tab:{label}}}",
            r"  \resizebox{\textwidth}{!}{%",
            f"  \\begin{{tabular}}{{{left}{'c' * (len(head) - len(left))}}}",
            r"    \toprule",
            f"    {' & '.join(escape(word) for word in head)} \\\\",
            r"    \midrule",
            *body,
            r"    \bottomrule",
            r"  \end{tabular}}",
            r"\end{table*}",
        ]
    )


def _rows(section: Section, metric: str) -> list[list[str]]:
    rows = []
    for row in section.rows:
        paper = paper_trainable_text(row)
        trainable = _stack([escape(trainable_text(row)), f"paper {escape(paper)}" if paper else ""], "l")
        method = _stack([escape(row.label), escape(ranks_beside_label(row))], "l")
        cells = [_cell(section, row, column, metric) for column in section.all_columns]
        rows.append([method, trainable, *cells])
    return rows


def _cell(section: Section, row: Row, column: str, metric: str) -> str:
    text = cell_text(section.cell(row, column), metric)
    mean = f"\\textbf{{{text.mean}}}" if section.is_best(row, column, metric) else text.mean
    std = f" $\\pm$ {text.std}" if text.std else ""
    seeds = f" ({text.seeds.split()[0]})" if text.seeds else ""
    difference = f" (${text.difference}$)" if text.difference else ""
    paper = f"paper {text.paper}{difference}" if text.paper else ""
    return _stack([f"{mean}{std}{seeds}", escape(text.interval), paper, escape(text.empty)])


def _tests(section: Section) -> list[list[str]]:
    return [
        [escape(row.label), *(escape(comparison_text(c)) if c else "" for c in comparisons)]
        for row in section.rows
        if (comparisons := section.tests.of_row(row))
    ]


def _stack(lines: Sequence[str], align: str = "c") -> str:
    """The lines that are not empty, one above the other."""
    lines = [line for line in lines if line]
    if len(lines) < 2:
        return "".join(lines)
    option = "" if align == "c" else f"[{align}]"
    return f"\\stacked{option}{{{_NEW_LINE.join(lines)}}}"
