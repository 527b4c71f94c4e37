"""`prepare` writes a whole set or changes nothing."""

import argparse
import csv
import inspect
import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from commands.prepare import CONVERTER_OPTIONS, add_arguments
from datasets.converters.plan import Case, Plan
from datasets.converters.table import CONVERTERS, Converter
from datasets.preparation.prepare import prepare
from utils.config import load_config
from utils.errors import ConfigError, UserError

ROOT = Path(__file__).resolve().parents[3]
CONVERTER_NAMES = sorted(CONVERTERS)
OWN = ("coco", "folder", "nnunet", "npz")


def toy(source, *, seed, count=2, fail=False, split="paper"):
    """Grey images, two per patient; with `fail` only the first can be read."""
    cases = [Case(f"i{i}", partial(_toy_pair, seed, fail and i > 0), "train", f"p{i // 2}") for i in range(count)]
    return Plan(cases, notes={"grey": seed}, lines=["grey"])


def _toy_pair(value, broken):
    if broken:
        raise UserError("i1.png: broken")
    return np.full((4, 5), value, np.uint8), np.eye(4, 5, dtype=bool)


def empty(source, *, seed):
    """Two images without a vessel."""
    images = [np.full((4, 5), value, np.uint8) for value in (1, 2)]
    return Plan([Case(f"i{i}", partial(tuple, (image, image > 9)), "train") for i, image in enumerate(images)])


def with_fields_of_view(source, *, seed):
    return Plan([Case("i0", partial(_toy_pair, seed, False), "train", fov=lambda image: image > 0)])


@pytest.fixture(autouse=True)
def with_toy(monkeypatch):
    for name, convert in {"toy": toy, "empty": empty, "fov": with_fields_of_view}.items():
        monkeypatch.setitem(CONVERTERS, name, Converter(convert))


def files(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_what_is_written_and_returned(tmp_path):
    summary = prepare("toy", None, tmp_path / "a" / "b" / "set", seed=3, count=1)
    root = tmp_path / "a/b/set"
    assert set(files(root)) == {"images/i0.png", "masks/i0.png", "data_split.csv", "dataset.json"}
    assert (root / "data_split.csv").read_bytes() == b"imgs,split,group\ni0.png,train,p0\n"
    assert summary == {
        "name": "toy",
        "output": str(root),
        "seed": 3,
        "images": 1,
        "splits": {"train": 1, "val": 0, "test": 0},
        "options": {"count": 1},
        "grey": 3,
        "longest_side": 5,
        "lines": ["grey"],
    }
    # The record moves with the folder, so it doesn't say where the folder was.
    recorded = {k: v for k, v in summary.items() if k not in ("output", "lines")}
    assert json.loads((root / "dataset.json").read_text()) == recorded
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


def test_a_set_with_fields_of_view_is_replaced_too(tmp_path):
    for seed in (1, 2):
        prepare("fov", None, tmp_path / "set", seed=seed, force=True)
    assert (tmp_path / "set" / "fov" / "i0.png").is_file()


def test_a_set_without_any_labelled_pixel_is_refused(tmp_path):
    """A model that predicts nothing would have a Dice of 1 on it."""
    with pytest.raises(UserError, match=r"empty: no mask has a labelled pixel; look at the masks, or at --threshold"):
        prepare("empty", None, tmp_path / "set")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stage", ["convert", "record", "interrupt"])
def test_a_failure_leaves_the_old_set_unchanged_and_nothing_new(tmp_path, monkeypatch, stage):
    prepare("toy", None, tmp_path / "set", seed=1)
    before = files(tmp_path)

    def broken(*_):
        raise KeyboardInterrupt if stage == "interrupt" else OSError("disk full")

    if stage != "convert":
        monkeypatch.setattr("datasets.preparation.prepare.write_json", broken)
    for output, force in ((tmp_path / "set", True), (tmp_path / "new" / "deeper" / "set", False)):
        with pytest.raises((UserError, OSError, KeyboardInterrupt)):
            prepare("toy", None, output, seed=2, force=force, fail=stage == "convert")
        assert files(tmp_path) == before
        assert [p.name for p in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("stopped_by", [OSError, KeyboardInterrupt])
def test_the_old_set_comes_back_if_the_new_one_cannot_take_its_place(tmp_path, monkeypatch, stopped_by):
    prepare("toy", None, tmp_path / "set", seed=1)
    before, rename = files(tmp_path), os.rename

    def refuse_new(source, target):
        if source.name == "new":
            raise stopped_by("no")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse_new)
    with pytest.raises(stopped_by, match="no"):
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
        with pytest.raises(UserError, match=rf"{name}: not a data set \(no data_split\.csv\)"):
            prepare("toy", None, tmp_path / name, force=True)
    assert files(tmp_path) == before
    (tmp_path / "empty").mkdir()
    prepare("toy", None, tmp_path / "empty", force=True)
    assert (tmp_path / "empty" / "images" / "i0.png").is_file()


def test_an_output_under_a_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"file/set: its folder cannot be created"):
        prepare("toy", None, tmp_path / "file" / "set")


def test_unknown_sets_and_options(tmp_path):
    with pytest.raises(ConfigError, match=r"no data set 'drives' to prepare; known: arcade, chase_db1, .*, toy"):
        prepare("drives", None, tmp_path / "out")
    with pytest.raises(ConfigError, match="prepare toy has no option --size; it has --count, --fail, --split"):
        prepare("toy", None, tmp_path / "out", size=3)
    assert not list(tmp_path.iterdir())
    prepare("toy", None, tmp_path / "out", size=None)  # None is an option left out


def test_folds_are_drawn_by_group_and_fold_0_is_the_split(tmp_path):
    summary = prepare("toy", None, tmp_path / "set", seed=1, count=10, folds=5)
    assert summary["folds"] == [2, 2, 2, 2, 2]
    assert summary["splits"] == {"train": 8, "val": 0, "test": 2}
    with open(tmp_path / "set" / "data_split.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["group"] for row in rows] == [f"p{i // 2}" for i in range(10)]
    assert all((row["split"] == "test") == (row["fold"] == "0") for row in rows)
    assert len({(row["group"], row["fold"]) for row in rows}) == 5
    assert prepare("toy", None, tmp_path / "again", seed=1, count=10, folds=5)["folds"] == [2, 2, 2, 2, 2]
    assert (tmp_path / "again/data_split.csv").read_bytes() == (tmp_path / "set/data_split.csv").read_bytes()
    prepare("toy", None, tmp_path / "other", seed=2, count=10, folds=5)
    assert (tmp_path / "other/data_split.csv").read_bytes() != (tmp_path / "set/data_split.csv").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 1}, "--folds 1: must be from 2 to 5, the number of groups of images"),
        ({"folds": 6}, "--folds 6: must be from 2 to 5"),
        ({"folds": 5, "split": "paper"}, "--folds draws its own splits; leave --split out"),
    ],
)
def test_invalid_folds(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        prepare("toy", None, tmp_path / "set", count=10, **options)
    assert not list(tmp_path.iterdir())


def test_folds_take_no_fractions(tmp_path):
    with pytest.raises(ConfigError, match="--folds draws its own splits; leave --val_fraction out"):
        prepare("folder", None, tmp_path / "set", folds=5, val_fraction=0.2)


def test_the_output_may_be_the_folder_that_one_is_in(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UserError, match="here: exists already"):
        prepare("toy", None, ".")
    prepare("toy", None, ".", force=True)
    assert (tmp_path / "here" / "data_split.csv").is_file()


def test_a_dry_run_reports_the_same_and_writes_nothing(tmp_path):
    planned = prepare("toy", None, tmp_path / "a" / "set", seed=1, count=10, folds=5, dry_run=True)
    assert not list(tmp_path.iterdir())
    assert planned | {"longest_side": 5} == prepare("toy", None, tmp_path / "a" / "set", seed=1, count=10, folds=5)


def test_force_does_not_remove_a_source(tmp_path):
    prepare("toy", None, tmp_path / "set")
    before = files(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "set" / "images")
    for source in (tmp_path / "set", tmp_path / "set" / "images", tmp_path / "link"):
        with pytest.raises(UserError, match=r"lies in .*set, which --force would remove"):
            prepare("toy", source, tmp_path / "set", force=True)
        with pytest.raises(UserError, match=r"lies in .*set, which --force would remove"):
            prepare("folder", None, tmp_path / "set", force=True, images=source, masks=source)
    (tmp_path / "link").unlink()
    assert files(tmp_path) == before


@pytest.mark.parametrize("name", CONVERTER_NAMES)
def test_every_set_has_a_config(name):
    path = ROOT / "configs" / "data" / f"{name}.yaml"
    if name in OWN:  # their data.yaml is written with the data
        path = ROOT / "configs" / "config_data.yaml"
    config = load_config(None, path)
    assert config.require_data().label_names[0] == "Background"
    assert (config.data_transforms.img_size == 512) == (name not in ("shapes", "synthetic"))
    assert name in OWN or f"prepare {name}" in path.read_text()


def test_the_help_names_every_set():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    text = parser.format_help()
    assert [name for name in CONVERTER_NAMES if name not in text] == []


def test_converters_and_the_command_line_have_the_same_options():
    signatures = [inspect.signature(converter.convert).parameters for converter in CONVERTERS.values()]
    taken = {name for parameters in signatures for name in parameters} - {"source", "seed"}
    assert taken - {"count", "fail"} == set(CONVERTER_OPTIONS) - {"count"}
