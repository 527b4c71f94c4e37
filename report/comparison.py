"""Tests SALT against every other row of a section: which SALT row, and the corrected p-values of each dataset."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from report.cells import Row
from report.statistics import PairedTest, holm, paired_test, smallest_p

LEVEL = 0.05


@dataclass(frozen=True)
class Comparison:
    """One test. `p_holm` is corrected over the other rows of the same dataset; `error` says why there is no test."""

    row: Row
    test: PairedTest | None = None
    p_holm: float | None = None
    error: str = ""


@dataclass(frozen=True)
class SectionTests:
    """The tests of a section by dataset. `reference` is the SALT row that is tested, None where there is none."""

    reference: Row | None = None
    by_column: Mapping[str, Sequence[Comparison]] = field(default_factory=dict)

    def of(self, row: Row, column: str) -> Comparison | None:
        """The test of one row on one dataset."""
        return next((c for c in self.by_column.get(column, ()) if c.row.label == row.label), None)

    def of_row(self, row: Row) -> list[Comparison | None]:
        """The tests of one row, in the order of `by_column`; empty where it is tested on no dataset."""
        comparisons = [self.of(row, column) for column in self.by_column]
        return comparisons if any(comparisons) else []

    def errors(self) -> list[str]:
        """The tests that were not possible, and why."""
        return [
            f"{column}: {self.reference.label} against {c.row.label}: {c.error}"
            for column, comparisons in self.by_column.items()
            for c in comparisons
            if c.error and self.reference
        ]

    def too_few_images(self) -> list[str]:
        """The datasets with too few images for any test to be significant after the correction."""
        lines = []
        for column, comparisons in self.by_column.items():
            tests = [c.test for c in comparisons if c.test]
            if not tests:
                continue
            p = smallest_p(tests[0].n)
            corrected = min(1.0, p * len(tests))
            if corrected > LEVEL:
                lines.append(
                    f"{column}: {tests[0].n} images and {len(tests)} methods: p cannot fall below {p:.3g}, "
                    f"nor the smallest corrected p below {corrected:.3g}"
                )
        return lines


def run_tests(rows: Sequence[Row], columns: Sequence[str]) -> SectionTests:
    """Tests the reference SALT row against all others, dataset by dataset, by Dice."""
    reference = reference_row(rows)
    if reference is None:
        return SectionTests()
    others = [row for row in rows if row is not reference]
    tested = {column: _compare(reference, others, column) for column in columns}
    return SectionTests(reference, {column: comparisons for column, comparisons in tested.items() if comparisons})


def reference_row(rows: Sequence[Row]) -> Row | None:
    """The SALT row that is tested: the paper's SALT 256 where it has runs, else the one of the highest LoRA rank.

    Of several such rows, it is one with SAM's own mask head, then the one with the most datasets, then the first.
    """
    salts = [row for row in rows if row.key and row.key.method == "salt" and row.runs]
    if not salts:
        return None

    def preference(row: Row) -> tuple[bool, int, bool, int]:
        is_paper = row.paper is not None and row.paper.name.endswith("salt_256")
        assert row.key is not None
        own_head = row.key.mask_head == "official"
        return is_paper, row.key.r_lora, own_head, sum(1 for cell in row.cells.values() if cell.scores)

    return max(salts, key=preference)


def _compare(reference: Row, others: Sequence[Row], column: str) -> list[Comparison]:
    ours = reference.cells[column]
    comparisons = []
    for row in others:
        cell = row.cells[column]
        if not ours.scores or not cell.scores:
            continue
        if ours.dice_by_image is None or cell.dice_by_image is None:
            without = reference if ours.dice_by_image is None else row
            comparisons.append(Comparison(row, error=f"no scores image by image of {without.label}"))
            continue
        try:
            comparisons.append(Comparison(row, paired_test(ours.dice_by_image, cell.dice_by_image)))
        except ValueError as error:
            comparisons.append(Comparison(row, error=f"different test images: {error}"))
    corrected = iter(holm([c.test.p for c in comparisons if c.test]))
    return [Comparison(c.row, c.test, next(corrected), "") if c.test else c for c in comparisons]
