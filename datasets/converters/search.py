"""Finding a set's files in a folder that may have a top folder or not."""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from datasets.io import IMAGE_SUFFIXES
from utils.errors import UserError

# A source may be the folder above a set's own, whose archive may have a top folder, beside other archives.
_DEPTH = 3
_NO_DATA = ("__MACOSX", ".")

NO_SOURCE = "this set is made from its official files: give --source, a folder or an archive"


def find_path(source: Path | None, *paths: str) -> Path:
    """Return where one of the relative `paths` is: in the source, or in a folder up to `_DEPTH` below it.

    The first path that is anywhere counts, and the place nearest to the source. A path that begins with a folder's own
    name, without ending, is found in it too: the source may be the set's inner folder, or an archive of that name
    without a top folder. What a Mac added to an archive is passed over.

    Raises: UserError if there is none, or if no source was given.
    """
    if source is None:
        raise UserError(NO_SOURCE)
    for path in paths:
        first, _, rest = path.partition("/")
        for folder in _folders(source):
            if (folder / path).exists():
                return folder / path
            if rest and folder.absolute().stem == first and (folder / rest).exists():
                return folder / rest
    raise UserError(f"{source.name}: no {paths[0]} in it or in its folders; is it the official archive?")


def _folders(source: Path) -> Iterator[Path]:
    """The source and the folders below it, the nearest first."""
    level = [source]
    for _ in range(_DEPTH + 1):
        yield from level
        children = (child for folder in level for child in sorted(folder.iterdir()))
        level = [child for child in children if child.is_dir() and not child.name.startswith(_NO_DATA)]


def files_by(folder: Path, pattern: str, key: Callable[..., Any] = str) -> dict[Any, Path]:
    """Return the files of a folder whose whole name matches `pattern`, by `key` of its groups and in the keys' order.

    With `int` as key, 10 comes after 2. A missing folder has no files.

    Raises: UserError if two files have one key.
    """
    return _index((folder,) if folder.is_dir() else (), pattern, key)


def files_below(source: Path | None, pattern: str, key: Callable[..., Any] = str) -> dict[Any, Path]:
    """Return the same of a source and of all folders up to `_DEPTH` below it.

    Raises: UserError if two files have one key, or if no source was given.
    """
    if source is None:
        raise UserError(NO_SOURCE)
    return _index(_folders(source), pattern, key)


def _index(folders: Iterable[Path], pattern: str, key: Callable[..., Any]) -> dict[Any, Path]:
    found: dict[Any, Path] = {}
    for path in (path for folder in folders for path in sorted(folder.iterdir())):
        if (match := re.fullmatch(pattern, path.name, re.IGNORECASE)) and path.is_file():
            name = key(*match.groups())
            if name in found:
                raise UserError(f"{path}: a second file like {found[name]}; keep one")
            found[name] = path
    return dict(sorted(found.items()))


def images_by_stem(folder: Path) -> dict[str, Path]:
    """Return the image files of a folder by stem, numbers in the order of their values.

    Raises: UserError if two have one stem, or if there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=lambda path: natural(path.stem)):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
            if path.stem in found:
                raise UserError(f"{path}: a second image of the stem of {found[path.stem].name}; keep one")
            found[path.stem] = path
    return found


def natural(text: str) -> list[tuple[int, int, str]]:
    """A sort key that puts i10 after i2."""
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in re.split(r"(\d+)", text) if part]
