"""Files of tensors: read whole, refused in one line, and never run."""

import os
import pickle
import random

import pytest
import torch
from safetensors.torch import save_file

from checkpointing.tensor_files import read_tensor_file, write_safetensors
from utils.errors import UserError

STATE = {"a": torch.arange(12.0).reshape(3, 4), "b.c": torch.tensor([1, 2], dtype=torch.int64)}
KINDS = ("x.safetensors", "x.pth", "legacy.pth")


def write(path, state=STATE, metadata=None):
    if path.suffix == ".safetensors":
        save_file(state, path, metadata)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=path.stem != "legacy")
    return path


def refusal(path):
    with pytest.raises(UserError) as caught:
        read_tensor_file(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", [*KINDS, "x.pt", "x.bin"])
def test_tensors_come_back_as_they_were(tmp_path, name):
    content, metadata = read_tensor_file(write(tmp_path / name))
    assert list(content) == list(STATE)
    for key, value in STATE.items():
        assert content[key].dtype == value.dtype
        assert torch.equal(content[key], value)
    assert metadata == {}


def test_metadata_of_safetensors_comes_along(tmp_path):
    _, metadata = read_tensor_file(write(tmp_path / "x.safetensors", metadata={"config": "a: 1\n", "sha": "ab"}))
    assert metadata == {"config": "a: 1\n", "sha": "ab"}


def test_plain_values_beside_tensors_are_read(tmp_path):
    state = {"model": STATE, "epoch": 3, "names": ["x"], "rng": torch.get_rng_state()}
    content, _ = read_tensor_file(write(tmp_path / "last.pth", state))
    assert content["epoch"] == 3
    assert torch.equal(content["model"]["a"], STATE["a"])


@pytest.mark.parametrize("name", KINDS)
def test_a_file_cut_anywhere_is_refused(tmp_path, name):
    path = write(tmp_path / name)
    whole = path.read_bytes()
    for size in {*range(0, len(whole), max(1, len(whole) // 60)), 1, 2, len(whole) - 1}:
        path.write_bytes(whole[:size])
        refusal(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", KINDS)
def test_spoiled_bytes_are_refused_or_read_but_never_crash(tmp_path, name):
    path = write(tmp_path / name)
    whole, rng = path.read_bytes(), random.Random(0)
    messages = []
    for _ in range(150):
        spoiled = bytearray(whole)
        for _ in range(4):
            spoiled[rng.randrange(len(whole) // 2)] = rng.randrange(256)
        path.write_bytes(spoiled)
        try:
            read_tensor_file(path)
        except UserError as error:
            messages.append(str(error))
    assert len(messages) > 20
    assert all(message.startswith(f"{path}: ") and "\n" not in message for message in messages)


@pytest.mark.parametrize("content", [b"", b"hello\nworld\n", b"a: 1\n", b"<html>no</html>", b"\x80", b"G\x9e", b"PK"])
@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
def test_files_of_another_kind_are_refused(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    refusal(path)


def test_each_format_under_the_others_name_is_refused(tmp_path):
    write(tmp_path / "a.pth").rename(tmp_path / "b.safetensors")
    refusal(tmp_path / "b.safetensors")
    write(tmp_path / "a.safetensors").rename(tmp_path / "b.pth")
    refusal(tmp_path / "b.pth")


@pytest.mark.parametrize(
    ("error", "reason"), [(RuntimeError("\n first\nsecond"), "first"), (IndexError(), "IndexError")]
)
def test_any_error_of_the_reader_becomes_one_line(tmp_path, monkeypatch, error, reason):
    def fail(*_, **__):
        raise error

    path = write(tmp_path / "x.pth")
    monkeypatch.setattr(torch, "load", fail)
    assert refusal(path).endswith(f"({reason})")


def test_what_is_not_there_and_what_is_a_folder(tmp_path):
    assert "no such file" in refusal(tmp_path / "none.pth")
    (tmp_path / "folder.safetensors").mkdir()
    assert "no such file" in refusal(tmp_path / "folder.safetensors")


@pytest.mark.parametrize("kind", ["zip", "legacy", "bare pickle"])
def test_pickled_code_is_refused_and_never_run(tmp_path, kind):
    path, sprung = tmp_path / "x.pth", tmp_path / "sprung"
    state = {"a": STATE["a"], "code": Trap(sprung)}
    if kind == "bare pickle":
        path.write_bytes(pickle.dumps({"code": Trap(sprung)}, protocol=2))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    assert "refused" in refusal(path)
    assert not sprung.exists()
    # The trap works: the loader that this project never uses springs it.
    if kind != "bare pickle":
        torch.load(path, weights_only=False)
        assert sprung.is_dir()


def test_a_pickled_module_is_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    assert "refused" in refusal(tmp_path / "module.pth")


def test_a_safetensors_file_is_as_readable_as_any_new_file_and_never_has_another_name(tmp_path, monkeypatch):
    """safetensors itself writes a hidden file first, which a killed process would leave behind."""
    seen, replace = [], os.replace

    def note(source, target):
        seen.append([path.name for path in tmp_path.iterdir()])
        replace(source, target)

    monkeypatch.setattr(os, "replace", note)
    write_safetensors(tmp_path / "a.safetensors", {"x": torch.arange(6.0).reshape(2, 3).T}, {"key": "value"})
    assert seen == [[f".a.{os.getpid()}.tmp.safetensors"]]
    tensors, metadata = read_tensor_file(tmp_path / "a.safetensors")
    assert metadata == {"key": "value"}
    assert torch.equal(tensors["x"], torch.arange(6.0).reshape(2, 3).T)
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode
