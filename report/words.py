"""The sentences around the numbers, the same in every document."""

from report.numbers import ranks_beside_label
from report.rows import descriptions
from report.settings import differences
from report.table import Section, Table

TITLE = "SALT: results beside the paper's Table 1"
HOW_TO_READ = (
    "Each number is the mean over the seeds, with their standard deviation after ± where there are several.",
    "In brackets: 95% bootstrap interval over the test images, each averaged over the seeds first.",
    "Then: the paper's number (arXiv 2503.16055) as printed, and ours minus the paper's. The paper rounds Dice to two "
    "decimals (three for SAM2), so a difference below half of its last decimal means nothing.",
    "Bold: the best of a column within its table, as rounded. A row whose prompt is made from the truth is not ranked.",
    "Where exactly one of two masks is empty, HD95 is the image diagonal; the number of such pairs is given.",
)


def test_caption(section: Section) -> str:
    """What the tests compare, or why there are no tests."""
    reference = section.tests.reference
    if reference is None:
        return "There is no SALT run among these rows, so nothing is tested."
    ranks = ranks_beside_label(reference)
    name = f"{reference.label} ({ranks})" if ranks else reference.label
    if not section.tests.by_column:
        return f"No other row has scores on the datasets of {name}, so nothing is tested."
    return (
        f"Wilcoxon's signed-rank test, two-sided, of {name} against each row, by the Dice of each test image and label "
        "averaged over the seeds: p after Holm's correction over the rows of a dataset, then the uncorrected p, the "
        "number of pairs n, and the mean difference (positive: SALT is better)."
    )


def notes(table: Table) -> list[str]:
    """Notes to a table: folds, remarks on cells, rows that a plan named, tests that are impossible or show nothing."""
    lines = [
        f"{line}: each seed's number is the mean over its folds, weighted by their test images; figures show "
        "the first fold"
        for line in table.cross_validated()
    ]
    lines += table.remarks()
    for section in table.sections:
        lines += _named_rows(section)
        lines += [f"No test: {error}" for error in section.tests.errors()]
        lines += section.tests.too_few_images()
    return lines


def _named_rows(section: Section) -> list[str]:
    """What the rows are that a plan named: the method, and what tells it from others that read the same."""
    rows = {row.key: row for row in section.rows if row.key is not None and row.runs}
    described = descriptions(list(rows))
    lines = []
    for key, row in rows.items():
        if not key.name or key.name == key.paper:
            continue
        alike = [rows[other] for other in rows if described[other] == described[key]]
        shared = [column for column in section.columns if all(other.cells[column].runs for other in alike)]
        runs = {other.key: (other.cells[shared[0]].runs if shared else other.runs)[0] for other in alike}
        apart = differences({other: run.settings for other, run in runs.items()})
        lines.append(f"{row.label}: {', '.join(filter(None, (described[key], apart[key])))}")
    return lines
