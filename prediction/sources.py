"""Finds the files to predict, names their masks and reads their images."""

import glob
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_transforms.data_transforms import Data_Transform
from datasets.dicom import DICOM_SUFFIXES, WHITE, frame_count, is_dicom, read_frames
from datasets.io import IMAGE_SUFFIXES, read_image
from utils.errors import UserError


@dataclass(frozen=True)
class Source:
    """A file and the name of its mask, a relative path without suffix."""

    path: Path
    stem: Path

    def stems(self) -> list[Path]:
        """The names of its masks: `stem`, or `<stem>_frame_0001` and so on for a DICOM file of several frames.

        Raises: UserError for an unreadable DICOM file.
        """
        count = frame_count(self.path) if is_dicom(self.path) else 1
        if count == 1:
            return [self.stem]
        return [self.stem.with_name(f"{self.stem.name}_frame_{i + 1:04d}") for i in range(count)]

    def images(self, transform: Data_Transform) -> Iterator[np.ndarray]:
        """Yields the images of `stems`, (H, W, 3): uint8, uint16, or, of DICOM files, float32 in the model's own units.

        Raises: UserError that names the file.
        """
        if not is_dicom(self.path):
            yield read_image(self.path)
            return
        for frame in read_frames(self.path):
            yield in_units_of(transform, frame)


def in_units_of(transform: Data_Transform, frame: np.ndarray) -> np.ndarray:
    """A windowed frame (0..65535) as `transform` expects it: DICOM's own window replaces a_min..a_max."""
    if transform.a_min is None and transform.a_max is None:
        return frame
    low = 0.0 if transform.a_min is None else transform.a_min
    high = WHITE if transform.a_max is None else transform.a_max
    scaled = low + frame * np.float32((high - low) / WHITE)
    return np.rint(scaled).astype(np.uint16) if transform.a_max is None else scaled.astype(np.float32)


def find_sources(images: Sequence[str | Path], output: Path) -> list[Source]:
    """The files to predict.

    Args:
        images: folders, searched with their subfolders for files of known kinds (hidden files left out); files of any
            name; and patterns such as "scans/**/*.png". A mask gets its image's path relative to the folder, or to
            the part of a pattern before its first wildcard.
        output: the folder of the masks; files in it are not predicted.

    Raises:
        UserError: nothing found; masks in the images' own folder; two images whose masks would have one name.
    """
    found: dict[Path, Source] = {}
    for given in images:
        for path, name in _listed(given, output):
            found.setdefault(path, Source(path, _without_suffix(name)))
    _refuse_collisions(list(found.values()), output)
    return list(found.values())


def _listed(given: str | Path, output: Path) -> list[tuple[Path, Path]]:
    """(file, its name under `output`) of one argument."""
    path = Path(given)
    if path.is_dir():
        if path.resolve() == output.resolve():
            raise UserError(f"--output {output}: is the images' own folder; give another, or masks would replace them")
        files = [file for file in _outside(output, path.rglob("*")) if _is_image(file.relative_to(path), file)]
        if not files:
            kinds = ", ".join(sorted(IMAGE_SUFFIXES | DICOM_SUFFIXES))
            raise UserError(f"{path}: holds no image ({kinds})")
        return [(file, file.relative_to(path)) for file in files]
    if path.exists() or not glob.has_magic(str(given)):
        return [(path, Path(path.name))]  # reading it reports a missing one
    root = _fixed_part(path)
    files = [file for file in _outside(output, map(Path, glob.glob(str(given), recursive=True))) if file.is_file()]
    if not files:
        raise UserError(f"{given}: matches no file")
    return [(file, file.relative_to(root)) for file in files]


def _outside(folder: Path, files: Iterable[Path]) -> list[Path]:
    """The files outside `folder`, sorted: the masks of an earlier call are not images."""
    folder = folder.resolve()
    return [file for file in sorted(files) if not _resolved(file).is_relative_to(folder)]


def _resolved(path: Path) -> Path:
    """The path without links; a link that leads back to itself stays, and reading it reports that."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path.absolute()


def _fixed_part(pattern: Path) -> Path:
    """The folders of a pattern before its first wildcard."""
    parts = pattern.parts
    first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:first])


def _is_image(name: Path, file: Path) -> bool:
    if any(part.startswith(".") for part in name.parts) or not file.is_file():
        return False
    suffix = file.suffix.lower()
    return suffix in IMAGE_SUFFIXES or suffix in DICOM_SUFFIXES or (_is_bare(suffix) and is_dicom(file))


def _is_bare(suffix: str) -> bool:
    """Whether a name has no suffix, or only the last part of a number such as 1.2.840."""
    return not suffix or re.fullmatch(r"\.\d+", suffix) is not None


def _without_suffix(name: Path) -> Path:
    return name.with_suffix("") if name.suffix.lower() in IMAGE_SUFFIXES | DICOM_SUFFIXES else name


def _refuse_collisions(sources: Sequence[Source], output: Path) -> None:
    by_stem: dict[Path, Path] = {}
    for source in sources:
        mask = output / f"{source.stem}.png"
        if source.stem in by_stem:
            raise UserError(f"{source.path} and {by_stem[source.stem]}: both masks would be {mask}; rename one")
        if _resolved(mask) == _resolved(source.path):
            raise UserError(f"--output {output}: {source.path} would be replaced by its mask; give another folder")
        by_stem[source.stem] = source.path
