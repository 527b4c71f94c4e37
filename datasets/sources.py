"""Opening what a converter reads: a folder, a zip or a tar archive, as a folder."""

import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from utils.errors import UserError

# An archive that unpacks to more than this, or to more files, is refused.
MAX_BYTES = 64 << 30
MAX_FILES = 500_000

_CHUNK = 1 << 20
_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_NO_DATA = ("__MACOSX/", ".DS_Store", "._")


@contextmanager
def open_source(source: Path | None, scratch: Path, max_bytes: int = MAX_BYTES) -> Iterator[Path | None]:
    """Yield the folder of a source: itself, or what an archive holds, unpacked under `scratch` and removed at the end.

    Links, devices and names that leave the folder are refused, and so is an archive of more than `max_bytes` unpacked.

    Raises: UserError that names the archive and the member.
    """
    if source is None or source.is_dir():
        yield source
        return
    if not source.is_file():
        raise UserError(f"{source}: no such folder or archive; give --source")
    with tempfile.TemporaryDirectory(prefix=".unpacked-", dir=scratch) as folder:
        unpacked = Path(folder) / source.name  # errors of the converters then name the archive
        unpacked.mkdir()
        _unpack(source, unpacked, max_bytes)
        yield unpacked


def _unpack(archive: Path, folder: Path, max_bytes: int) -> None:
    left = max_bytes
    try:
        for count, (name, stream) in enumerate(_members(archive)):
            if count >= MAX_FILES:
                raise UserError(f"{archive}: more than {MAX_FILES} files")
            target = folder / _safe_name(archive, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with stream, open(target, "xb") as file:
                # The size in the header may lie: count what comes out.
                while chunk := stream.read(_CHUNK):
                    left -= len(chunk)
                    if left < 0:
                        raise UserError(f"{archive}: unpacks to more than {max_bytes} bytes; unpack it yourself")
                    file.write(chunk)
    except UserError:
        raise
    except FileExistsError as error:
        raise UserError(f"{archive}: two members named {Path(error.filename).name}; unpack it yourself") from error
    except Exception as error:  # damaged archives raise zlib.error, EOFError, BadZipFile, TarError, OSError, ...
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(":")
        raise UserError(f"{archive}: not a readable archive ({reason}); download it again") from error


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield name and content of every file of an archive. Raises: UserError at anything but files and folders."""
    if archive.name.lower().endswith(_TAR_SUFFIXES):
        with tarfile.open(archive) as tar:
            for member in tar:
                if not member.isdir() and _is_data(member.name):
                    _refuse_unless(member.isfile(), archive, member.name)
                    yield member.name, tar.extractfile(member)
    elif zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                if not info.is_dir() and _is_data(info.filename):
                    kind = stat.S_IFMT(info.external_attr >> 16)
                    _refuse_unless(kind in (0, stat.S_IFREG), archive, info.filename)
                    yield info.filename, zipped.open(info)
    else:
        raise UserError(f"{archive}: neither a folder nor a zip or tar archive, or it is damaged; download it again")


def _is_data(name: str) -> bool:
    """Whether it is a file of the set, not what a Mac adds to archives."""
    return not (name.startswith(_NO_DATA) or PurePosixPath(name).name.startswith(_NO_DATA))


def _refuse_unless(is_file: bool, archive: Path, name: str) -> None:
    if not is_file:
        raise UserError(f"{archive}: member {name} is a link or device, which is refused; unpack it yourself")


def _safe_name(archive: Path, name: str) -> PurePosixPath:
    """The member's name, if it stays inside the folder on every system."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and ":" in path.parts[0]):
        raise UserError(f"{archive}: member {name} leads out of the folder, which is refused")
    return path


def find_folder(source: Path | None, inside: str, depth: int = 2) -> Path:
    """Return the folder that holds `inside` (a relative path): the source, or a folder up to `depth` below it.

    So an archive may have a top folder or not.

    Raises: UserError if there is none, or if no source was given.
    """
    if source is None:
        raise UserError("this set is made from its official files: give --source, a folder or an archive")
    level = [source]
    for _ in range(depth + 1):
        if found := [folder for folder in level if (folder / inside).exists()]:
            return found[0]
        level = [child for folder in level for child in sorted(folder.iterdir()) if child.is_dir()]
    raise UserError(f"{source.name}: no {inside} in it or in its folders; is it the official archive?")
