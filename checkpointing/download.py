"""Downloads official weights and verifies them. A failed download leaves no file."""

import contextlib
import errno
import logging
import resource
import socket
import sys
import time
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError

from torch.hub import download_url_to_file

from checkpointing.published import DOWNLOADS, Download, digest_error, weights_folder
from checkpointing.tensor_files import read_tensor_file
from utils.errors import ConfigError, UserError
from utils.files import atomic_path

log = logging.getLogger(__name__)

# A download that has not written for this long was killed; torch.hub cleans up after itself in all other cases.
_ABANDONED_SECONDS = 3600
_TIMEOUT_SECONDS = 60
MAX_BYTES = 8 << 30  # the largest published file has 2.6e9


def download(name: str, folder: Path | None = None, url: str | None = None) -> Path:
    """Downloads one of DOWNLOADS into `folder` and returns its path; verifies a file that exists already.

    An interrupted download leaves nothing behind; the next one starts from the beginning.

    Args:
        name: a key of DOWNLOADS.
        folder: created if missing; the project's weights/ by default.
        url: another address of the same file (a mirror); the hash must be the same.

    Raises:
        ConfigError: unknown name.
        UserError: no connection (the message names the address and the file's place); the file received is not the
            published one or no weights file; another file has its name.
    """
    if name not in DOWNLOADS:
        raise ConfigError(f"no download {name!r}; known: {', '.join(DOWNLOADS)}")
    published = DOWNLOADS[name]
    path = (folder or weights_folder()) / published.file_name
    if path.exists():
        if problem := _problem(path, published):
            raise UserError(f"{path}: exists, but is not {name}: {problem}; remove it and download again")
        log.info("%s: exists already", path)
        return path
    _remove_abandoned(path)
    _fetch(url or published.url, name, path, published)
    return path


def _fetch(url: str, name: str, path: Path, published: Download) -> None:
    with atomic_path(path) as temporary:
        try:
            with _socket_timeout(_TIMEOUT_SECONDS), _file_size_limit(MAX_BYTES):
                download_url_to_file(url, str(temporary), progress=sys.stderr.isatty())
        except HTTPError as error:
            answer = str(error.reason).split("\n")[-1]  # of a loop of redirections, a text of several lines
            raise UserError(
                f"{url}: the server answers {error.code} {answer}; give a mirror's address with --url"
            ) from error
        except (URLError, HTTPException, OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno == errno.EFBIG:
                raise UserError(f"{url}: sends more than {MAX_BYTES} bytes; nothing was saved, try --url") from error
            reason = getattr(error, "reason", None) or error
            raise UserError(
                f"{url}: cannot be downloaded ({reason}); download it elsewhere and put it at {path}, "
                "or give a mirror's address with --url"
            ) from error
        if problem := _problem(temporary, published):
            raise UserError(f"{url}: sent something other than {name}: {problem}; nothing was saved, try again")
    if not (published.sha256 or published.prefix):
        log.warning("%s: no hash of this file is published; only that it reads as weights was checked", path)


def _problem(path: Path, published: Download) -> str | None:
    if problem := digest_error(path, published):
        return problem
    if published.sha256 or published.prefix:
        return None
    # Without a hash, this still finds a truncated file or an error page.
    try:
        read_tensor_file(path)
    except UserError as error:
        return str(error).removeprefix(f"{path}: ")
    return None


@contextlib.contextmanager
def _file_size_limit(size: int) -> Iterator[None]:
    """Limits the files that this process writes, so that a server cannot fill the disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size if soft == resource.RLIM_INFINITY else min(size, soft), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Limits the wait for a silent server; torch.hub itself sets no timeout."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _remove_abandoned(path: Path) -> None:
    for leftover in path.parent.glob(f".{path.stem}.*.partial"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - leftover.stat().st_mtime > _ABANDONED_SECONDS:
                leftover.unlink()
