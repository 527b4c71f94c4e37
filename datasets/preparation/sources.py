"""Opening the source of a converter, a folder or zip and tar archives, as one folder."""

import errno
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from tqdm import tqdm

from datasets.preparation.digests import check_digest
from utils.errors import UserError, first_line

# Limits of what an archive may unpack to, against zip bombs. The ratio of unpacked to packed bytes is about 10 for
# images stored as text and 1000 for zeros. It applies to archives that unpack to more than ALWAYS_ALLOWED bytes.
MAX_BYTES = 64 << 30
MAX_FILES = 500_000
MAX_RATIO = 100
ALWAYS_ALLOWED = 1 << 30

_CHUNK = 1 << 20
_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_IGNORED = ("__MACOSX/", ".DS_Store", "._")
_OUR_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EFBIG)


@contextmanager
def open_sources(
    sources: Sequence[Path], scratch: Path, digests: Mapping[str, str] | None = None, max_bytes: int = MAX_BYTES
) -> Iterator[Path | None]:
    """Yield the source folder, or a folder of the unpacked archives under `scratch`, which is removed at the end.

    Several archives are unpacked side by side. Links, devices, names that lead out of the folder and archives beyond
    the limits above are refused. A UserError raised in the block names the archive and the member instead of the
    temporary path.

    Args:
        sources: one folder, or archives; none yields None.
        digests: {file name: "sha256:..." or "md5:..."} of the official archives; others are used, with a warning.
        max_bytes: of an unpacked archive.

    Raises: UserError that names the archive and the member.
    """
    for source in sources:
        if not source.exists():
            raise UserError(f"{source}: no such folder or archive; give --source")
    if len(sources) == 1 and sources[0].is_dir():
        yield sources[0]
        return
    if not sources:
        yield None
        return
    for source in sources:
        if not source.is_file():
            raise UserError(
                f"{source}: several sources must all be archives; put the folders into one folder and give that"
            )
    if len({source.name for source in sources}) < len(sources):
        raise UserError(f"{sources[0].name}: given twice, or two sources have this name; give each once")
    with tempfile.TemporaryDirectory(prefix=".unpacked-", dir=scratch) as folder:
        for source in sources:
            check_digest(source, digests or {})
            unpacked = Path(folder) / source.name
            unpacked.mkdir()
            _unpack(source, unpacked, max_bytes)
        try:
            yield unpacked if len(sources) == 1 else Path(folder)
        except UserError as error:
            raise type(error)(str(error).replace(f"{folder}/", "")) from error


def _unpack(archive: Path, folder: Path, max_bytes: int) -> None:
    left = limit = min(max_bytes, max(ALWAYS_ALLOWED, MAX_RATIO * archive.stat().st_size))
    bar = tqdm(desc=f"unpacking {archive.name}", unit="B", unit_scale=True, disable=None)
    try:
        for count, (name, stream) in enumerate(_members(archive)):
            if count >= MAX_FILES:
                raise UserError(f"{archive}: more than {MAX_FILES} files")
            if stream is None:
                raise UserError(f"{archive}: member {name} is a link or device, which is refused; unpack it yourself")
            target = folder / _safe_name(archive, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with stream, open(target, "xb") as file:
                # The size in the header may be false: count the bytes that are unpacked.
                while chunk := stream.read(_CHUNK):
                    left -= len(chunk)
                    if left < 0:
                        raise UserError(f"{archive}: unpacks to more than {limit} bytes; unpack it yourself")
                    file.write(chunk)
                    bar.update(len(chunk))
    except UserError:
        raise
    except FileExistsError as error:
        raise UserError(f"{archive}: two members named {Path(error.filename).name}; unpack it yourself") from error
    except Exception as error:  # damaged archives raise zlib.error, EOFError, BadZipFile, TarError, OSError, ...
        if isinstance(error, OSError) and error.errno in _OUR_DISK:
            raise UserError(f"{archive}: cannot be unpacked in {folder.parents[1]} ({error.strerror})") from error
        reason = first_line(error).rstrip(":")
        raise UserError(f"{archive}: not a readable archive ({reason}); download it again") from error
    finally:
        bar.close()


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    """Yield the name and the content of every member that is data. A link or a device has no content."""
    if archive.name.lower().endswith(_TAR_SUFFIXES):
        with tarfile.open(archive) as tar:
            for member in tar:
                if not member.isdir() and _is_data(member.name):
                    yield member.name, tar.extractfile(member) if member.isfile() else None
    elif zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                if not info.is_dir() and _is_data(info.filename):
                    kind = stat.S_IFMT(info.external_attr >> 16)
                    yield info.filename, zipped.open(info) if kind in (0, stat.S_IFREG) else None
    else:
        raise UserError(f"{archive}: neither a folder nor a zip or tar archive, or it is damaged; download it again")


def _is_data(name: str) -> bool:
    """Return whether a member belongs to the set; macOS adds files of its own to archives."""
    return not (name.startswith(_IGNORED) or PurePosixPath(name).name.startswith(_IGNORED))


def _safe_name(archive: Path, name: str) -> PurePosixPath:
    """Return the member's path. Raises: UserError if it leads out of the folder on any operating system."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and ":" in path.parts[0]):
        raise UserError(f"{archive}: member {name} leads out of the folder, which is refused")
    return path
