"""DIAS: frames in the order of their numbers become one image; scribbles are not masks."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.converters import dias as module
from datasets.preparation.prepare import prepare
from utils.errors import UserError

COUNTS = {"training": 6, "validation": 2, "test": 3}
Frames = dict[str, list[np.ndarray]]


@pytest.fixture
def dias(tmp_path, monkeypatch) -> tuple[Path, Frames, dict[str, np.ndarray]]:
    """Write the official layout with fewer, smaller sequences; return frames and masks by file name."""
    monkeypatch.setattr(module, "_SPLIT_SIZES", {"train": 4, "test": 2})
    root, rng, frames, masks = tmp_path / "DIAS", np.random.default_rng(0), {}, {}
    for part, count in COUNTS.items():
        for folder in ("images", "labels", "scribble_labels"):
            (root / part / folder).mkdir(parents=True)
        for sequence in range(9, 9 + count):  # 9 and 10: numbers that sort otherwise as text
            name = f"{part}_s{sequence}.png"
            frames[name] = [rng.integers(0, 256, (7, 8), dtype=np.uint8) for _ in range(4 + sequence % 10)]
            for number, frame in enumerate(frames[name]):
                Image.fromarray(frame).save(root / part / "images" / f"image_s{sequence}_i{number}.png")
            masks[name] = rng.random((7, 8)) < 0.3
            masks[name][0, 0] = True
            label = np.where(masks[name], rng.integers(101, 256, (7, 8)), rng.integers(0, 101, (7, 8))).astype(np.uint8)
            Image.fromarray(label).save(root / part / "labels" / f"label_s{sequence}.png")
            Image.fromarray(255 - label).save(root / part / "scribble_labels" / f"label_s{sequence}.png")
    return root, frames, masks


PROJECTIONS = {
    "min": lambda frames: np.minimum.reduce(frames),
    "last": lambda frames: frames[-1],
    "mean": lambda frames: np.rint(sum(frame.astype(float) for frame in frames) / len(frames)).astype(np.uint8),
}


@pytest.mark.parametrize("projection", [None, "min", "last", "mean"])
def test_one_image_per_sequence(dias, tmp_path, rows, assert_written, projection):
    root, frames, masks = dias
    assert max(len(sequence) for sequence in frames.values()) > 11  # i10 comes after i2
    summary = prepare("dias", root, tmp_path / "out", projection=projection)
    project = PROJECTIONS[projection or "min"]
    names = list(frames)[:8]  # the training and the validation part
    assert_written(tmp_path / "out", {name: (project(frames[name]), masks[name]) for name in names})
    assert summary["splits"] == {"train": 4, "val": 2, "test": 2}
    assert [row["imgs"] for row in rows(tmp_path / "out")] == names
    assert all(row["imgs"].startswith("validation") == (row["split"] == "val") for row in rows(tmp_path / "out"))


def test_the_paper_draws_20_and_10():
    assert module._SPLIT_SIZES == {"train": 20, "test": 10}


def test_the_official_split(dias, tmp_path, rows, assert_written):
    root, frames, masks = dias
    summary = prepare("dias", root, tmp_path / "out", split="official")
    assert_written(tmp_path / "out", {name: (PROJECTIONS["min"](frames[name]), masks[name]) for name in frames})
    assert summary["splits"] == {"train": 6, "val": 2, "test": 3}
    parts = {"train": "training", "val": "validation", "test": "test"}
    assert all(row["imgs"].startswith(parts[row["split"]]) for row in rows(tmp_path / "out"))


@pytest.mark.parametrize("top", [True, False])
def test_an_archive_gives_the_same_files(dias, tmp_path, pack, contents, top):
    prepare("dias", dias[0], tmp_path / "tree")
    prepare("dias", pack(dias[0], tmp_path / "DIAS.zip", top), tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "tree")


def test_missing_and_invalid_files_are_named(dias, tmp_path):
    folder = dias[0] / "training"
    Image.new("L", (3, 3)).save(folder / "images" / "image_s9_i5.png")
    with pytest.raises(UserError, match=r"image_s9_i5\.png: size or bit depth differs from image_s9_i0\.png"):
        prepare("dias", dias[0], tmp_path / "out")
    (folder / "labels" / "label_s9.png").unlink()
    with pytest.raises(UserError, match=r"image_s9_i0\.png: no training/labels file belongs to it"):
        prepare("dias", dias[0], tmp_path / "out")
    for path in (folder / "images").glob("image_s9_*"):
        path.unlink()
    for path in (folder / "images").glob("image_s10_*"):
        path.unlink()
    with pytest.raises(UserError, match=r"label_s10\.png: no image belongs to it"):
        prepare("dias", dias[0], tmp_path / "out")
    assert not (tmp_path / "out").exists()
