"""Integrity check of a data set: all that is wrong with it, in one report."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from datasets.io import IMAGE_SUFFIXES, read_image
from datasets.masks import MaskIndex, find_mask, index_masks, read_labels
from datasets.split import SPLITS, Row, read_rows, row_problems, split_csv
from utils.errors import UserError

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong; an error ends a run or falsifies its numbers, a warning may be as intended."""

    severity: Severity
    kind: str
    file: str
    message: str


@dataclass
class CheckReport:
    """What `check` found, and counts: images, images a split, and foreground masks that aren't empty, by label."""

    findings: list[Finding] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether there is no error; warnings are allowed."""
        return not any(finding.severity == "error" for finding in self.findings)

    def lines(self) -> list[str]:
        """Return the report as text: errors, warnings, then the counts."""
        worst_first = sorted(self.findings, key=lambda finding: (finding.severity != "error", finding.kind))
        lines = [f"{f.severity}: {f.kind}: {f.message}" for f in worst_first]
        number = Counter(finding.severity for finding in self.findings)
        lines.append(", ".join(f"{count} {name}" for name, count in self.counts.items()))
        lines.append(f"{number['error']} errors, {number['warning']} warnings")
        return lines

    def add(self, severity: Severity, kind: str, file: str | Path, message: str) -> None:
        """Note a finding; the message is a whole line that names the file."""
        self.findings.append(Finding(severity, kind, str(file), message))


def check(config: Any) -> CheckReport:
    """Check the data set of a config (its `data` section) and list every problem instead of stopping at the first.

    Errors: a split file that is missing or lacks its columns, a row without name or with an unknown split, a repeated
    row, one image in two splits, a missing or unreadable image or mask, a mask of another size than its image or with
    values outside `label_list`, two images of one content in different splits. Warnings: a mask without a foreground
    label, a split without images, two images of one content in one split, an image that the split file leaves out.
    """
    report = CheckReport()
    try:
        rows = read_rows(split_csv(config.data))
    except UserError as error:
        report.add("error", "split file", split_csv(config.data), str(error))
        return report
    _check_rows(report, split_csv(config.data), rows)
    named: dict[str, str] = {}  # each image with the split of its first row
    for row in rows:
        if row.image:
            named.setdefault(row.image, row.split)
    contents = _check_files(report, config.data, list(named))
    _check_contents(report, named, contents)
    _check_leftovers(report, Path(config.data.root_path) / "images", set(named))
    return report


def _check_rows(report: CheckReport, path: Path, rows: list[Row]) -> None:
    for problem in row_problems(rows):
        report.add("error", problem.kind, problem.image or path, f"{path}, row {problem.line}: {problem.message}")
    number = Counter(row.split for row in rows)
    report.counts = {"images": len({row.image for row in rows if row.image})}
    report.counts |= {split: number[split] for split in SPLITS}
    for split in ("train", "test"):
        if not number[split]:
            report.add("warning", "empty split", path, f"{path}: no image of split {split!r}")


def _check_files(report: CheckReport, data: Any, names: list[str]) -> dict[str, str]:
    """Decode every image and mask; returns the hash of each readable image's pixels by name."""
    root = Path(data.root_path)
    indices: dict[Path, MaskIndex] = {}
    contents: dict[str, str] = {}
    report.counts |= {f"{label} masks": 0 for label in data.label_names[1:]}
    for name in names:
        path, mask, size = root / "images" / name, None, None
        try:
            image = read_image(path)
            size = image.shape[:2]
            contents[name] = _pixel_hash(image)
        except UserError as error:
            report.add("error", "missing image" if not path.is_file() else "unreadable image", path, str(error))
        try:
            mask = find_mask(root / "masks", name, _index(indices, (root / "masks" / name).parent))
        except UserError as error:
            report.add("error", "mask not found", path, str(error))
        if mask is not None and size is not None:
            _check_mask(report, data, mask, path, size)
    return contents


def _index(indices: dict[Path, MaskIndex], folder: Path) -> MaskIndex:
    if folder not in indices:
        indices[folder] = index_masks(folder)
    return indices[folder]


def _check_mask(report: CheckReport, data: Any, mask: Path, image: Path, size: tuple[int, int]) -> None:
    try:
        positions = read_labels(mask, data.label_list, image, size)
    except UserError as error:
        report.add("error", "mask", mask, str(error))
        return
    found = set(np.unique(positions).tolist()) - {0}
    for position in found:
        report.counts[f"{data.label_names[position]} masks"] += 1
    if not found:
        report.add("warning", "empty mask", mask, f"{mask}: no pixel of {', '.join(data.label_names[1:])}")


def _pixel_hash(image: np.ndarray) -> str:
    """The same for the same pixels, whatever the file's format."""
    return hashlib.sha256(f"{image.shape} {image.dtype}".encode() + image.tobytes()).hexdigest()


def _check_contents(report: CheckReport, splits: dict[str, str], contents: dict[str, str]) -> None:
    first: dict[str, str] = {}
    for name, content in contents.items():
        twin = first.setdefault(content, name)
        if twin == name:
            continue
        leaks = splits[twin] != splits[name]
        message = f"{name} ({splits[name]}) has the pixels of {twin} ({splits[twin]}); keep one"
        report.add("error" if leaks else "warning", "duplicate content", name, message)


def _check_leftovers(report: CheckReport, folder: Path, named: set[str]) -> None:
    for path in _image_files(folder):
        if path.relative_to(folder).as_posix() not in named:
            report.add("warning", "not in the split file", path, f"{path}: the split file doesn't list it")


def _image_files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in IMAGE_SUFFIXES)
