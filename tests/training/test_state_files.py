"""States on the disk: two generations, checksums, and what a death at any moment of writing leaves."""

import hashlib

import pytest
import torch

from training import state_files
from training.state_files import StateFolder
from utils.errors import UserError


def values(folder):
    return [int(folder.read(path)["value"]) for path in folder.states()]


@pytest.fixture
def folder(tmp_path):
    folder = StateFolder(tmp_path / "last")
    for value in (1, 2):
        folder.save({"value": torch.tensor(value)})
    return folder


def test_the_newest_two_are_kept_with_their_checksums(folder):
    assert folder.has_progress
    folder.save({"value": torch.tensor(3)})
    assert values(folder) == [3, 2]
    assert len(list(folder.folder.iterdir())) == 4
    for path in folder.states():
        digest, name = path.with_name(f"{path.name}.sha256").read_text().split()
        assert name == path.name
        assert digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_first_state_is_no_progress_and_clearing_removes_all(folder):
    folder.clear()
    assert not list(folder.folder.iterdir())
    folder.save({"value": torch.tensor(1)})
    assert not folder.has_progress
    with pytest.raises(UserError, match="last: nothing to resume; start without --resume"):
        StateFolder(folder.folder.parent / "absent" / "last").newest()


class Killed(BaseException):
    """Stands for kill -9: nothing is caught."""


@pytest.mark.parametrize("moment", ["torch.save", "sha256", "write_text", "_drop_all_but"])
def test_killed_at_any_moment_of_saving_a_whole_state_is_the_newest(folder, monkeypatch, moment):
    def killed(*_):
        raise Killed

    target = folder if moment == "_drop_all_but" else state_files
    with monkeypatch.context() as patch:
        patch.setattr(torch if moment == "torch.save" else target, moment.removeprefix("torch."), killed)
        with pytest.raises(Killed):
            folder.save({"value": torch.tensor(3)})
    expected = 3 if moment == "_drop_all_but" else 2
    assert int(folder.read(folder.newest())["value"]) == expected
    folder.drop_old()
    assert len(list(folder.folder.iterdir())) == 4
    assert int(folder.read(folder.newest())["value"]) == expected
    folder.save({"value": torch.tensor(4)})
    assert values(folder) == [4, expected]
    assert len(list(folder.folder.iterdir())) == 4
