"""Examines one image and its mask: facts for the dataset card, and findings about the two files."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from data_transforms.intensity import check_window
from datasets.io import read_image, read_mask
from datasets.masks import positions_for, read_field_of_view
from utils.errors import ConfigError, UserError

Severity = Literal["error", "warning"]

# Vessels cover about a tenth of an image, an organ rarely half of it.
_MAX_FOREGROUND = 0.5


@dataclass(frozen=True)
class Finding:
    """One problem. An error stops a run or falsifies its numbers; a warning may be intended."""

    severity: Severity
    kind: str
    file: str
    message: str


class Files(NamedTuple):
    """An image's name in the split file, its path, and its mask's and field of view's, or None where there is none."""

    name: str
    image: Path
    mask: Path | None
    fov: Path | None = None


@dataclass
class Facts:
    """The facts and findings of one image; what could not be read is None or empty.

    Attributes:
        size: (H, W).
        depth: bits and colour, for example "8-bit grey".
        values: the mask's values as stored.
        shares: the share of the image, 0..1, that each foreground label covers, by name; absent labels are left out.
        content: a hash of the pixels, independent of the file's format.
    """

    name: str
    size: tuple[int, int] | None = None
    depth: str | None = None
    values: tuple[int, ...] = ()
    shares: dict[str, float] = field(default_factory=dict)
    content: str | None = None
    findings: list[Finding] = field(default_factory=list)

    def add(self, severity: Severity, kind: str, file: Path, message: str) -> None:
        """Add a finding; the message is a whole line that names the file."""
        self.findings.append(Finding(severity, kind, str(file), message))


def examine(
    files: Files,
    label_list: list[int],
    label_names: list[str],
    window: tuple[float | None, float | None] = (None, None),
) -> Facts:
    """Decode an image and its mask, and return their facts and findings.

    Args:
        window: a_min and a_max of the transforms, which must fit the image's values.
    """
    facts = Facts(files.name)
    try:
        image = read_image(files.image)
        facts.size = image.shape[:2]
        grey = (image == image[..., :1]).all()
        facts.depth = f"{image.dtype.itemsize * 8}-bit {'grey' if grey else 'colour'}"
        facts.content = hashlib.sha256(f"{image.shape} {image.dtype}".encode() + image.tobytes()).hexdigest()
        check_window(image, *window)
    except ConfigError as error:
        facts.add("error", "intensity window", files.image, f"{files.image}: {error}")
    except UserError as error:
        missing = not files.image.is_file()
        facts.add("error", "missing image" if missing else "unreadable image", files.image, str(error))
    inside = None
    if files.fov is not None and facts.size is not None:
        try:
            inside = read_field_of_view(files.fov, files.image, facts.size)
        except UserError as error:
            facts.add("error", "field of view", files.fov, str(error))
    if files.mask is None or facts.size is None:
        return facts
    try:
        values = read_mask(files.mask)
        facts.values = tuple(np.unique(values).tolist())
        positions = positions_for(values, label_list, files.mask, files.image, facts.size)
    except UserError as error:
        facts.add("error", "mask", files.mask, str(error))
        return facts
    if inside is not None and files.fov is not None and (outside := np.count_nonzero(positions[~inside])):
        share = outside / np.count_nonzero(positions)
        message = f"{files.mask}: {share:.1%} of the foreground is outside of the field of view {files.fov.name}"
        facts.add("warning", "outside field of view", files.mask, message)
    counts = np.bincount(positions.ravel(), minlength=len(label_list))
    facts.shares = {name: count / positions.size for name, count in zip(label_names, counts, strict=True) if count}
    ground = facts.shares.pop(label_names[0], 0.0)
    if not facts.shares:
        facts.add("warning", "empty mask", files.mask, f"{files.mask}: no pixel of {', '.join(label_names[1:])}")
    elif 1 - ground > _MAX_FOREGROUND:
        message = f"{files.mask}: {1 - ground:.0%} is foreground; check that it is neither inverted nor a field of view"
        facts.add("warning", "mostly foreground", files.mask, message)
    return facts
