"""Finding the files of a set in a source folder that may have further folders above them."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from datasets.io import IMAGE_SUFFIXES
from utils.errors import UserError

# The source may hold several unpacked archives, each with a top folder.
_DEPTH = 3
_IGNORED = ("__MACOSX", ".")

NO_SOURCE_OF_OWN = "give --source, the folder or archive of your data"
NO_SOURCE = "this set is made from its official files: give --source, a folder or an archive"


def find_in_source(source: Path | None, *paths: str) -> Path:
    """Return where the first of the relative `paths` that exists is: in the source, or up to `_DEPTH` folders below it.

    The place nearest to the source counts. The first folder of a path may also be the folder that is searched, if its
    name without suffix is the same: the source may be the set's inner folder, or an archive of that name without a top
    folder. Hidden folders and those that macOS adds to archives are ignored.

    Raises: UserError if none exists, or if no source was given.
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
    """Yield the source and the folders below it, the nearest first."""
    level = [source]
    for _ in range(_DEPTH + 1):
        yield from level
        children = (child for folder in level for child in sorted(folder.iterdir()))
        level = [child for child in children if child.is_dir() and not child.name.startswith(_IGNORED)]


def match_files(folder: Path, pattern: str, key: Callable[..., Any] = str) -> dict[Any, Path]:
    """Return {key(*groups): file} of the files in a folder whose whole name matches `pattern`, sorted by key.

    With `int` as `key`, 10 comes after 2. A missing folder counts as empty.

    Raises: UserError if two files have the same key.
    """
    return _index((folder,) if folder.is_dir() else (), pattern, key)


def match_files_below(source: Path | None, pattern: str, key: Callable[..., Any] = str) -> dict[Any, Path]:
    """Return what `match_files` returns, but for the source and all folders up to `_DEPTH` below it.

    Raises: UserError if two files have the same key, or if no source was given.
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
                raise UserError(f"{path}: has the same number or name as {found[name]}; keep one")
            found[name] = path
    return dict(sorted(found.items()))


def images_by_stem(folder: Path) -> dict[str, Path]:
    """Return the image files of a folder by stem, in natural order (i2 before i10).

    Raises: UserError if two have the same stem, or if there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=lambda path: natural(path.stem)):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
            if path.stem in found:
                raise UserError(f"{path}: a second image with the stem of {found[path.stem].name}; keep one")
            found[path.stem] = path
    return found


def images_below(folder: Path) -> dict[str, Path]:
    """Return the image files in a folder and its subfolders, by path from the folder without ending, in natural order.

    Where two paths differ only by their endings (x.jpg and x.png), all keep them. Hidden files and folders are ignored.

    Raises: UserError if there is no such folder, or no image in it; the error says what the folder holds instead.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    files = files_below(folder, IMAGE_SUFFIXES)
    if not files:
        raise UserError(f"{folder}: holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}); {contents_of(folder)}")
    names = {path: path.relative_to(folder).as_posix() for path in files}
    stems = {path: name[: -len(path.suffix)] for path, name in names.items()}
    chosen = stems if len(set(stems.values())) == len(files) else names
    return {chosen[path]: path for path in sorted(files, key=lambda path: natural(names[path]))}


def files_below(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """Return the files below a folder whose names end in one of `suffixes`, in natural order, without hidden ones."""
    endings = tuple(suffixes)
    found = (path for path in folder.rglob("*") if path.name.lower().endswith(endings) and path.is_file())
    visible = [path for path in found if not any(part.startswith(_IGNORED) for part in path.relative_to(folder).parts)]
    return sorted(visible, key=lambda path: natural(path.relative_to(folder).as_posix()))


def contents_of(folder: Path) -> str:
    """Return what a folder and its subfolders hold, for an error: "it holds 12 .dcm, 1 .txt"."""
    visible = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    number = Counter(path.suffix.lower() or "without ending" for path in visible)
    kinds = [f"{count} {kind}" for kind, count in number.most_common(4)]
    return f"it holds {', '.join(kinds)}" if kinds else "it is empty"


def natural(text: str) -> list[tuple[int, int, str]]:
    """Return a sort key that puts i10 after i2."""
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in re.split(r"(\d+)", text) if part]
