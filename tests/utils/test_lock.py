"""A lock is held by one process, and only while it lives."""

import errno
import fcntl
import os
import time

import pytest
from lock_holder import held

from utils.errors import UserError
from utils.lock import is_locked, locked


def test_one_process_at_a_time_and_nothing_is_left(tmp_path):
    path = tmp_path / "a" / "b" / "lock"
    with locked(path, "busy"):
        assert path.is_file()
    assert not list(tmp_path.iterdir())
    with held(path) as other:
        assert is_locked(path)
        with pytest.raises(UserError, match="a is busy"), locked(path, "a is busy"):
            raise AssertionError("both have it")
        other.kill()
        other.wait()
        assert path.is_file()
        assert not is_locked(path)
        with locked(path, "busy"):  # a dead process holds nothing
            (path.parent / "result").touch()
    assert [file.name for file in path.parent.iterdir()] == ["result"]


def test_a_forked_child_does_not_keep_it(tmp_path):
    """The workers of a data loader may outlive a killed run for some seconds."""
    path = tmp_path / "lock"
    reader, writer = os.pipe()
    holder = os.fork()
    if not holder:
        with locked(path, "busy"):
            child = os.fork() or time.sleep(60) or os._exit(0)
            os.write(writer, f"{child}\n".encode())
            os.kill(os.getpid(), 9)
    child = int(os.read(reader, 20))
    os.waitpid(holder, 0)
    try:
        with locked(path, "busy"):
            os.kill(child, 0)
    finally:
        os.kill(child, 9)
        os.close(reader)
        os.close(writer)


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, warned):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", unsupported)
    with locked(tmp_path / "lock", "busy"):
        pass
    assert warned() == [
        f"{tmp_path / 'lock'}: this file system has no locks (No locks available); start no second run here"
    ]


def test_where_nothing_can_be_written_nothing_is_locked(tmp_path, monkeypatch):
    def read_only(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "open", read_only)
    with locked(tmp_path / "lock", "busy"):
        pass
