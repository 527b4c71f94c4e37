"""Writing files so that a reader sees the old one or the new one, never half of one; and their hashes."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_CHUNK = 1 << 20
_TEMPORARY_NAME = re.compile(r"\..+\.\d+\.tmp(\.[^.]*)?")


@contextmanager
def atomic_path(path: str | Path, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; what the block writes there takes `path`'s place at the end.

    The folder is made if it is missing. The temporary name keeps the suffix, since libraries choose formats by it.
    If the block raises, the temporary file is removed and `path` is as it was. Where `durable` is False, that holds
    for this process, but not for a machine that crashes before it has flushed its disk.

    Raises: FileNotFoundError if the block wrote nothing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        os.chmod(temporary, _default_mode())  # safetensors makes files that only their owner may read
        if durable:
            _flush_to_disk(temporary)
        os.replace(temporary, path)
        if durable:
            _flush_to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _default_mode() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed processes left in `folder`; no other process may be writing there."""
    for path in folder.glob(".*"):
        if _TEMPORARY_NAME.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, obj: Any) -> None:
    """Write `obj` as indented JSON, atomically. Raises: TypeError or ValueError for what JSON can't hold (NaN too)."""
    write_text(path, json.dumps(obj, indent=2, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Return the content of a JSON file. Raises: OSError or ValueError."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    return digests(path, "sha256")["sha256"]


def digests(path: str | Path, *algorithms: str) -> dict[str, str]:
    """Return the hexadecimal digests of a file's bytes by algorithm ("sha256", "md5"), reading it once."""
    hashes = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            for each in hashes.values():
                each.update(chunk)
    return {name: each.hexdigest() for name, each in hashes.items()}


def cache_folder() -> Path:
    """The folder for what can be computed again: $SALT_CACHE, or salt/ in the user's cache folder. May not exist."""
    if chosen := os.environ.get("SALT_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "salt"
