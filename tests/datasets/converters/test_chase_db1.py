"""CHASE_DB1: 1-bit masks, two observers, and both eyes of a child in one split."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.preparation.prepare import prepare
from utils.errors import ConfigError, UserError


@pytest.fixture
def chase(tmp_path) -> tuple[Path, dict[int, dict[str, tuple[np.ndarray, np.ndarray]]]]:
    """The official layout with small images, and the truth by observer."""
    root, rng, truth = tmp_path / "CHASEDB1", np.random.default_rng(0), {1: {}, 2: {}}
    root.mkdir()
    for child in range(1, 15):
        for eye in "LR":
            name = f"Image_{child:02d}{eye}"
            Image.fromarray(rng.integers(0, 256, (16, 24, 3), dtype=np.uint8)).save(root / f"{name}.jpg", quality=95)
            with Image.open(root / f"{name}.jpg") as image:
                pixels = np.asarray(image)
            for observer, ending in ((1, "1stHO"), (2, "2ndHO")):
                vessels = rng.random((16, 24)) < 0.2
                Image.fromarray(vessels).save(root / f"{name}_{ending}.png")
                truth[observer][f"{name}.png"] = pixels, vessels
    with Image.open(root / "Image_01L_1stHO.png") as mask:
        assert mask.mode == "1"
    return root, truth


@pytest.mark.parametrize("observer", [None, 1, 2])
def test_masks_are_those_of_the_observer(chase, tmp_path, assert_written, observer):
    root, truth = chase
    summary = prepare("chase_db1", root, tmp_path / "out", observer=observer)
    assert_written(tmp_path / "out", truth[observer or 1])
    assert summary["splits"] == {"train": 20, "val": 0, "test": 8}


@pytest.mark.parametrize("seed", range(5))
def test_the_eyes_of_a_child_stay_together(chase, tmp_path, rows, seed):
    prepare("chase_db1", chase[0], tmp_path / "out", seed=seed)
    by_child = {(row["imgs"][6:8], row["split"]) for row in rows(tmp_path / "out")}
    assert len(by_child) == 14
    prepare("chase_db1", chase[0], tmp_path / "folds", seed=seed, folds=5)
    folds = rows(tmp_path / "folds")
    assert {row["group"] for row in folds} == {f"{child:02d}" for child in range(1, 15)}
    assert all(row["group"] == row["imgs"][6:8] for row in folds)
    assert len({(row["group"], row["fold"]) for row in folds}) == 14
    sizes = sorted(sum(row["fold"] == str(fold) for row in folds) for fold in range(5))
    assert sizes == [4, 6, 6, 6, 6]


@pytest.mark.parametrize("top", [True, False])
def test_an_archive_gives_the_same_files(chase, tmp_path, pack, contents, top):
    prepare("chase_db1", chase[0], tmp_path / "tree")
    prepare("chase_db1", pack(chase[0], tmp_path / "CHASEDB1.zip", top), tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "tree")


def test_missing_files_are_named_and_there_is_no_official_split(chase, tmp_path):
    root, _ = chase
    with pytest.raises(ConfigError, match="prepare chase_db1 has no option --split; it has --observer"):
        prepare("chase_db1", root, tmp_path / "out", split="official")
    (root / "Image_05R_1stHO.png").unlink()
    with pytest.raises(UserError, match=r"Image_05R\.jpg: no 1stHO file belongs to it"):
        prepare("chase_db1", root, tmp_path / "out")
    (root / "Image_05R.jpg").unlink()
    (root / "Image_05L.jpg").unlink()
    with pytest.raises(UserError, match=r"Image_05L_1stHO\.png: no image belongs to it"):
        prepare("chase_db1", root, tmp_path / "out")
    for path in root.glob("Image_05*"):
        path.unlink()
    with pytest.raises(UserError, match=r"26 images cannot be split into 20 train \+ 8 test"):
        prepare("chase_db1", root, tmp_path / "out")
