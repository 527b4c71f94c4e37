"""Integrity check of a data set: all problems and a summary, in one report."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from datasets.checks.card import card_lines
from datasets.checks.examine import Facts, Files, Finding, Severity, examine
from datasets.io import IMAGE_SUFFIXES
from datasets.masks import FIELD_OF_VIEW, MaskFinder
from datasets.parallel import parallel_map
from datasets.split import Row, apply_fold, read_rows, row_problems, split_csv
from utils.errors import UserError

_SHOWN_OF_A_KIND = 20


@dataclass
class CheckReport:
    """The findings and the summary of `check`.

    Attributes:
        findings: in the order they were found.
        card: a summary of the set, as lines of text.
        files: image and mask of every name in the split file, in its order.
        splits: {image name: split}, of the fold in the config.
    """

    findings: list[Finding] = field(default_factory=list)
    card: list[str] = field(default_factory=list)
    files: list[Files] = field(default_factory=list)
    splits: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether there is no error; there may be warnings."""
        return not any(finding.severity == "error" for finding in self.findings)

    def lines(self) -> list[str]:
        """Return the report as text: the first errors and warnings of each kind, the card, and the totals."""
        worst_first = sorted(self.findings, key=lambda finding: (finding.severity != "error", finding.kind))
        of_kind = Counter((finding.severity, finding.kind) for finding in worst_first)
        shown: Counter[tuple[str, str]] = Counter()
        lines = []
        for severity, kind, message in ((f.severity, f.kind, f.message) for f in worst_first):
            shown[severity, kind] += 1
            if shown[severity, kind] <= _SHOWN_OF_A_KIND:
                lines.append(f"{severity}: {kind}: {message}")
            elif shown[severity, kind] == of_kind[severity, kind]:
                lines.append(f"{severity}: {kind}: ... and {of_kind[severity, kind] - _SHOWN_OF_A_KIND} more")
        number = Counter(finding.severity for finding in self.findings)
        return [*lines, *self.card, f"{number['error']} errors, {number['warning']} warnings"]

    def add(self, severity: Severity, kind: str, file: str | Path, message: str) -> None:
        """Add a finding; the message is a whole line that names the file."""
        self.findings.append(Finding(severity, kind, str(file), message))


def check(config: Any) -> CheckReport:
    """Check a config's data set (`data` and `data_transforms`). Lists every problem instead of stopping at the first.

    Errors: a split file that is missing, or lacks required columns or the config's fold; a row without a name or with
    an unknown split or fold; a repeated row; one image, or one group (a patient), in two splits; a missing or
    unreadable image or mask; an image that [a_min, a_max] does not fit; a mask of another size than its image or with
    values outside `label_list`; a folder fov/ with such a file, or without an image's; images with the same pixels in
    different splits. Warnings: a mask without foreground, mostly of it, or with some outside of the field of view; a
    train or test split without images; a split column that is not fold 0's; images with the same pixels in one split;
    an image that the split file leaves out.
    """
    report, path = CheckReport(), split_csv(config.data)
    try:
        rows = read_rows(path)
    except UserError as error:
        report.add("error", "split file", path, str(error))
        return report
    rows = _check_rows(report, config.data, path, rows)
    for row in rows:
        if row.image:
            report.splits.setdefault(row.image, row.split)
    facts = _check_files(report, config)
    _check_contents(report, facts)
    _check_leftovers(report, Path(config.data.root_path) / "images")
    report.card = card_lines(config.data, rows, facts)
    return report


def _check_rows(report: CheckReport, data: Any, path: Path, rows: list[Row]) -> list[Row]:
    """Check the split file. Returns: its rows with the splits of the config's fold."""
    for problem in row_problems(rows, data.label_names[1:]):
        report.add("error", problem.kind, problem.image or path, f"{path}, row {problem.line}: {problem.message}")
    written, fold = rows, getattr(data, "fold_num", 0)
    try:
        rows = apply_fold(written, fold, path)
    except UserError as error:
        report.add("error", "fold", path, str(error))
    if fold == 0 and [row.split for row in rows] != [row.split for row in written]:
        report.add("warning", "fold", path, f"{path}: column split differs from fold 0, which is used; correct one")
    _check_groups(report, path, rows)
    number = Counter(row.split for row in rows)
    for split in ("train", "test"):
        if not number[split]:
            report.add("warning", "empty split", path, f"{path}: no image of split {split!r}")
    return rows


def _check_groups(report: CheckReport, path: Path, rows: Sequence[Row]) -> None:
    first: dict[str, Row] = {}
    for row in rows:
        other = first.setdefault(row.group, row)
        if row.group and (row.split, row.fold) != (other.split, other.fold) and row.image != other.image:
            here, there = (f"{r.split}, fold {r.fold}" if r.fold else r.split for r in (row, other))
            message = f"{path}, row {row.line}: group {row.group} is in {here}, and in {there} by row {other.line}"
            report.add("error", "group in two", row.image, message)


def _check_files(report: CheckReport, config: Any) -> list[Facts]:
    """Find, decode and examine every image and mask."""
    data, settings = config.data, config.data_transforms
    root = Path(data.root_path)
    masks, fields = MaskFinder(root / "masks"), _find_fields_of_view(report, root)
    for name in report.splits:
        image, mask = root / "images" / name, None
        try:
            mask = masks.find(name)
        except UserError as error:
            report.add("error", "mask not found", image, str(error))
        report.files.append(Files(name, image, mask, fields.get(name)))
    work = partial(
        examine,
        label_list=list(data.label_list),
        label_names=list(data.label_names),
        window=(settings.a_min, settings.a_max),
    )
    facts = parallel_map(work, report.files, "check")
    for one in facts:
        report.findings += one.findings
    return facts


def _find_fields_of_view(report: CheckReport, root: Path) -> dict[str, Path]:
    """The file of each image in fov/, where there is that folder."""
    found: dict[str, Path] = {}
    fields = MaskFinder(root / "fov", FIELD_OF_VIEW)
    for name in report.splits if (root / "fov").is_dir() else ():
        try:
            found[name] = fields.find(name)
        except UserError as error:
            report.add("error", "field of view", root / "images" / name, str(error))
    return found


def _check_contents(report: CheckReport, facts: Sequence[Facts]) -> None:
    first: dict[str, str] = {}
    for name, content in ((one.name, one.content) for one in facts if one.content is not None):
        twin = first.setdefault(content, name)
        if twin == name:
            continue
        split, other = report.splits[name], report.splits[twin]
        message = f"{name} ({split}) has the same pixels as {twin} ({other}); keep one"
        report.add("error" if split != other else "warning", "duplicate content", name, message)


def _check_leftovers(report: CheckReport, folder: Path) -> None:
    for path in _image_files(folder):
        if path.relative_to(folder).as_posix() not in report.splits:
            report.add("warning", "unlisted image", path, f"{path}: not in the split file; list it or remove it")


def _image_files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in IMAGE_SUFFIXES)
