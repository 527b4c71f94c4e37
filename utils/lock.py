"""Locks between processes: a file that one process holds for as long as it lives."""

import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from utils.errors import UserError

log = logging.getLogger(__name__)

_HELD = (errno.EACCES, errno.EAGAIN)
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_LOCK = -1


@contextmanager
def locked(path: Path, busy: str) -> Iterator[None]:
    """Context manager: this process holds the lock file `path`, which is removed at the end.

    The folders above it are made, and those still empty are removed with it. The system frees the lock when its process
    ends, however it ends; forked children do not keep it. On NFS the server keeps it, for all machines. A warning says
    that a file system has no locks. In a folder that cannot be written to there is nothing to lock.

    Raises:
        UserError: another process holds it; `busy` is the message.
    """
    made = [folder for folder in path.parents if not folder.exists()]  # the innermost first
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _acquired(path)
    except OSError as error:
        if error.errno not in _READ_ONLY:
            raise
        descriptor = _NO_LOCK
    if descriptor is None:
        raise UserError(busy)
    if descriptor == _NO_LOCK:
        yield
        return
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)
        for folder in made:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def is_locked(path: Path) -> bool:
    """Whether another process holds the lock file `path`."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        return not _lock(descriptor, path)
    finally:
        os.close(descriptor)


def _acquired(path: Path) -> int | None:
    """The descriptor of the locked file; None if another process holds it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if not _lock(descriptor, path):
            os.close(descriptor)
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        os.close(descriptor)  # the process that held it has removed it since it was opened


def _lock(descriptor: int, path: Path) -> bool:
    """Whether the file is locked now. POSIX's locks, not flock's, which forked children share."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        log.warning("%s: this file system has no locks (%s); start no second run here", path, error.strerror)
    return True
