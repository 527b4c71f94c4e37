"""Finds files of the project, writes files atomically, and hashes them."""

import csv
import errno
import hashlib
import io
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from utils.errors import UserError

PROJECT_ROOT = Path(__file__).resolve().parents[1]

_TEMPORARY_NAME = re.compile(r"\..+\.(\d+)\.tmp(\.[^.]*)?")
_LONGEST_NAME = 255  # bytes, on all common file systems
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


class DiskError(OSError):
    """A disk that is full, broken or read-only; the message names the file, and says what of it is whole."""


@contextmanager
def atomic_path(path: str | Path, durable: bool = True) -> Iterator[Path]:
    """Yields a temporary path in the folder of `path`; the file that the block writes there replaces `path` at the end.

    Creates the folder if it is missing. The temporary name has the same suffix, since libraries choose formats by it.
    If the block raises, the temporary file is removed and `path` stays as it was. `durable` flushes the file to disk
    first, so that this also holds if the machine crashes.

    Raises:
        FileNotFoundError: the block wrote nothing.
        DiskError: the disk is full, for example.
    """
    path = Path(path)
    with disk_errors(path, "the file before it is undamaged" if path.exists() else "nothing of it was kept"):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(_temporary_name(path.name, os.getpid()))
        try:
            yield temporary
            if durable:
                _flush_to_disk(temporary)
            os.replace(temporary, path)
            if durable:
                _flush_to_disk(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def disk_errors(path: Path, state: str) -> Iterator[None]:
    """Context manager: an error of the disk is raised as DiskError, in whatever class a library raised it.

    `path` is the file that the block writes, `state` says what of it is whole then.
    """
    try:
        yield
    except (DiskError, UserError):
        raise
    except Exception as error:
        number = _disk_error(error)
        if number is None:
            raise
        reason = os.strerror(number)
        raise DiskError(
            f"{path}: cannot be written ({reason}); {state}; free some space, or choose another folder"
        ) from error


def _disk_error(error: BaseException | None) -> int | None:
    """The system's error number, which libraries hide behind errors of their own."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
            return error.errno
        error = error.__cause__ or error.__context__
    return None


def _temporary_name(name: str, process: int | str) -> str:
    path = Path(name)
    temporary = f".{path.stem}.{process}.tmp{path.suffix}"
    if len(os.fsencode(temporary)) <= _LONGEST_NAME:
        return temporary
    digest = hashlib.sha256(os.fsencode(name), usedforsecurity=False).hexdigest()
    return f".{digest}.{process}.tmp{path.suffix if len(path.suffix) < 100 else ''}"


def remove_leftovers(folder: Path, names: Collection[str] | None = None) -> None:
    """Removes the temporary files of killed processes from `folder`; no other process may be writing there.

    `names` are the files whose temporary files are meant, by default all.
    """
    for path in folder.glob(".*"):
        match = _TEMPORARY_NAME.fullmatch(path.name)
        if match and (names is None or path.name in {_temporary_name(name, match[1]) for name in names}):
            path.unlink(missing_ok=True)


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def in_project(name: str) -> Path:
    """A path of this project, as short as the working directory allows: `weights` in the project's root."""
    return Path(name) if Path.cwd() == PROJECT_ROOT else PROJECT_ROOT / name


def find_path(path: Path, *folders: Path) -> Path:
    """The place that a relative path means: the first that exists of those below `folders`, the working directory and
    the project's root. An absolute path, and one that exists nowhere, stays as it is."""
    if path.is_absolute():
        return path
    places = [*(folder / path for folder in folders), path, PROJECT_ROOT / path]
    return next((place for place in places if place.exists()), path)


def portable_path(path: Path) -> str:
    """A path as files store it: relative to the project if it lies in it, else absolute; unchanged if nothing is there.

    Symbolic links are kept, since data/ is often a link to another disk.
    """
    if not (path.is_absolute() or path.exists()):
        return str(path)
    absolute = Path(os.path.abspath(path))
    return str(absolute.relative_to(PROJECT_ROOT) if absolute.is_relative_to(PROJECT_ROOT) else absolute)


def csv_text(head: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    """A CSV file's text, with "\\n" at the end of each line."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return buffer.getvalue()


def write_text(path: str | Path, text: str) -> None:
    """Writes `text` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, obj: Any) -> None:
    """Writes `obj` as indented JSON, atomically. Raises: TypeError or ValueError for what JSON lacks, also NaN."""
    write_text(path, json.dumps(obj, indent=2, allow_nan=False) + "\n")


def sha256(path: str | Path) -> str:
    """Returns the SHA-256 of a file as 64 hexadecimal digits."""
    return digests(path, "sha256")["sha256"]


def digests(path: str | Path, *algorithms: str) -> dict[str, str]:
    """Returns the hexadecimal digests of a file by algorithm ("sha256", "md5")."""
    found = {}
    with open(path, "rb") as file:
        for name in algorithms:
            file.seek(0)
            found[name] = hashlib.file_digest(file, partial(hashlib.new, name, usedforsecurity=False)).hexdigest()
    return found


def cache_folder() -> Path:
    """The folder of the caches: $SALT_CACHE, or salt/ in the user's cache folder. It may not exist."""
    chosen = os.environ.get("SALT_CACHE")
    try:
        return Path(chosen or os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / ("" if chosen else "salt")
    except RuntimeError:
        raise UserError("there is no home folder for the cache; set HOME, or SALT_CACHE to a folder") from None
