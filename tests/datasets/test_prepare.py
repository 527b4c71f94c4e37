"""`prepare` puts a whole set in place or changes nothing."""

import json

import numpy as np
import pytest

from datasets import prepare as module
from datasets.prepare import prepare
from utils.errors import ConfigError, UserError


def toy(source, writer, *, seed, count=2, fail=False):
    """Two grey images; with `fail` it breaks off after the first."""
    for i in range(count):
        writer.add(f"i{i}", np.full((4, 5), seed, np.uint8), np.zeros((4, 5), bool))
        if fail:
            raise UserError("i1.png: broken")
    writer.notes["grey"] = seed
    return dict.fromkeys(writer.names, "train")


@pytest.fixture(autouse=True)
def with_toy(monkeypatch):
    monkeypatch.setitem(module.CONVERTERS, "toy", toy)


def files(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_what_is_written_and_returned(tmp_path):
    summary = prepare("toy", None, tmp_path / "a" / "b" / "set", seed=3, count=1)
    root = tmp_path / "a/b/set"
    assert set(files(root)) == {"images/i0.png", "masks/i0.png", "data_split.csv", "dataset.json"}
    assert (root / "data_split.csv").read_bytes() == b"imgs,split\ni0.png,train\n"
    assert summary == {
        "name": "toy",
        "output": str(root),
        "seed": 3,
        "images": 1,
        "splits": {"train": 1, "val": 0, "test": 0},
        "options": {"count": 1},
        "grey": 3,
    }
    # The record moves with the folder, so it doesn't say where the folder was.
    assert json.loads((root / "dataset.json").read_text()) == {k: v for k, v in summary.items() if k != "output"}
    assert [p.name for p in root.parent.iterdir()] == ["set"]


def test_an_existing_set_is_refused_and_replaced_by_force(tmp_path):
    prepare("toy", None, tmp_path / "set", seed=1)
    before = files(tmp_path)
    with pytest.raises(UserError, match=r"set: exists already; .*--force"):
        prepare("toy", None, tmp_path / "set", seed=2)
    assert files(tmp_path) == before
    prepare("toy", None, tmp_path / "set", seed=2, count=1, force=True)
    after = files(tmp_path)
    assert set(after) == {f"set/{name}" for name in ("images/i0.png", "masks/i0.png", "data_split.csv", "dataset.json")}
    assert after["set/images/i0.png"] != before["set/images/i0.png"]
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("stage", ["convert", "record", "interrupt"])
def test_a_failure_leaves_the_old_set_as_it_was_and_nothing_new(tmp_path, monkeypatch, stage):
    prepare("toy", None, tmp_path / "set", seed=1)
    before = files(tmp_path)

    def broken(*_):
        raise KeyboardInterrupt if stage == "interrupt" else OSError("disk full")

    if stage != "convert":
        monkeypatch.setattr(module, "write_json", broken)
    for output, force in ((tmp_path / "set", True), (tmp_path / "new" / "deeper" / "set", False)):
        with pytest.raises((UserError, OSError, KeyboardInterrupt)):
            prepare("toy", None, output, seed=2, force=force, fail=stage == "convert")
        assert files(tmp_path) == before
        assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_the_old_set_comes_back_if_the_new_one_can_t_take_its_place(tmp_path, monkeypatch):
    prepare("toy", None, tmp_path / "set", seed=1)
    before, rename = files(tmp_path), module.os.rename

    def refuse_new(source, target):
        if source.name == "new":
            raise OSError("no")
        rename(source, target)

    monkeypatch.setattr(module.os, "rename", refuse_new)
    with pytest.raises(OSError, match="no"):
        prepare("toy", None, tmp_path / "set", seed=2, force=True)
    assert files(tmp_path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_force_replaces_a_set_or_an_empty_folder_and_nothing_else(tmp_path):
    for name in ("file", "folder", "link"):
        (tmp_path / name).mkdir() if name == "folder" else None
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder" / "mine.txt").write_text("mine")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "data_split.csv").write_text("imgs,split\n")
    (tmp_path / "link").symlink_to(tmp_path / "set")
    before = files(tmp_path)
    for name in ("file", "folder", "link"):
        with pytest.raises(UserError, match=rf"{name}: holds no data_split\.csv"):
            prepare("toy", None, tmp_path / name, force=True)
    assert files(tmp_path) == before
    (tmp_path / "empty").mkdir()
    prepare("toy", None, tmp_path / "empty", force=True)
    assert (tmp_path / "empty" / "images" / "i0.png").is_file()


def test_an_output_under_a_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"file/set: its folder can't be made"):
        prepare("toy", None, tmp_path / "file" / "set")


def test_unknown_sets_and_options(tmp_path):
    with pytest.raises(ConfigError, match="no data set 'drives' to prepare; known: drive, shapes, synthetic, toy"):
        prepare("drives", None, tmp_path / "out")
    with pytest.raises(ConfigError, match="prepare toy has no option --size; it has --count, --fail"):
        prepare("toy", None, tmp_path / "out", size=3)
    assert not list(tmp_path.iterdir())
    prepare("toy", None, tmp_path / "out", size=None)  # None is an option left out
