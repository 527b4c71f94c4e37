"""A user's own pairs: the pairing is shown, mask values are kept, unusable files are named."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.io import read_image, read_mask
from datasets.preparation.prepare import prepare
from utils.errors import ConfigError, UserError


@pytest.fixture
def mine(tmp_path) -> Path:
    """Ten pairs 21_photo.png, 21_manual1.gif, two per patient; mask values 0/1, 0/255 or labels."""
    rng = np.random.default_rng(0)
    for folder in ("photos", "drawings"):
        (tmp_path / "mine" / folder).mkdir(parents=True)
    for i in range(10):
        image = rng.integers(0, 256, (8, 9, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / "mine" / "photos" / f"p{i // 2}_{i}_photo.png")
        mask = rng.integers(0, 3 if i == 0 else 2, (8, 9), dtype=np.uint8) * (255 if i == 1 else 1)
        Image.fromarray(mask).save(tmp_path / "mine" / "drawings" / f"p{i // 2}_{i}_manual1.gif", optimize=False)
    return tmp_path / "mine"


def run(mine, output, **options):
    return prepare("folder", None, output, images=mine / "photos", masks=mine / "drawings", **options)


def test_the_pairing_is_proposed_and_shown_and_values_stay(mine, tmp_path):
    (mine / "photos" / "stray.tif").write_bytes(b"")
    (mine / "drawings" / "other.png").write_bytes(b"")
    (mine / "photos" / "notes.txt").write_bytes(b"")
    summary = run(mine, tmp_path / "out", pattern="{id}_photo={id}_manual1")
    assert summary["lines"] == [
        "pairing by {id}_photo={id}_manual1: 10 pairs",
        *[f"  p{i // 2}_{i}_photo.png  <->  p{i // 2}_{i}_manual1.gif" for i in range(5)],
        "  ... and 5 more",
        f"left out, images in {mine / 'photos'} that have no partner: 1",
        "  stray.tif",
        f"left out, masks in {mine / 'drawings'} that have no partner: 1",
        "  other.png",
    ]
    assert summary["unmatched"] == ["stray.tif", "other.png"]
    assert summary["splits"] == {"train": 7, "val": 0, "test": 3}
    for i in range(10):
        name = f"p{i // 2}_{i}_photo.png"
        np.testing.assert_array_equal(read_image(tmp_path / "out/images" / name), read_image(mine / "photos" / name))
        with Image.open(mine / "drawings" / f"p{i // 2}_{i}_manual1.gif") as mask:
            np.testing.assert_array_equal(read_mask(tmp_path / "out/masks" / name), np.asarray(mask))
    found = [np.unique(read_mask(tmp_path / f"out/masks/p0_{i}_photo.png")).tolist() for i in range(2)]
    assert found == [[0, 1, 2], [0, 255]]


def test_a_pattern_is_proposed(mine, tmp_path):
    summary = run(mine, tmp_path / "out", dry_run=True)
    assert summary["lines"][0] == "pairing by {id}_photo={id}_manual1: 10 pairs"
    assert not (tmp_path / "out").exists()


def test_patients_stay_together(mine, tmp_path, rows):
    run(mine, tmp_path / "out", pattern="{group}_{id}_photo={group}_{id}_manual1", test_fraction=0.2, val_fraction=0.2)
    by_patient = {(row["imgs"][:2], row["split"]) for row in rows(tmp_path / "out")}
    assert len(by_patient) == 5
    assert sorted(row["split"] for row in rows(tmp_path / "out")) == ["test"] * 2 + ["train"] * 6 + ["val"] * 2
    run(mine, tmp_path / "folds", pattern="{group}_{id}_photo={group}_{id}_manual1", folds=5)
    assert {(row["group"], row["imgs"][:2]) for row in rows(tmp_path / "folds")} == {(f"p{i}",) * 2 for i in range(5)}
    assert len({(row["group"], row["fold"]) for row in rows(tmp_path / "folds")}) == 5


def test_groups_of_different_sizes_are_split_as_closely_as_possible(mine, tmp_path, rows):
    for seed in range(5):
        pattern = "{group}_{id}_photo={group}_{id}_manual1"
        run(mine, tmp_path / f"out{seed}", pattern=pattern, test_fraction=0.3, seed=seed)
        splits = [row["split"] for row in rows(tmp_path / f"out{seed}")]
        assert splits.count("test") == 2


def test_masks_with_grey_edges_need_a_threshold(mine, tmp_path):
    grey = np.arange(72, dtype=np.uint8).reshape(8, 9)
    Image.fromarray(grey).save(mine / "drawings" / "p0_0_manual1.gif", optimize=False)
    with pytest.raises(UserError, match=r"p0_0_manual1\.gif: 72 values from 0 to 71 are not labels; .*--threshold"):
        run(mine, tmp_path / "out")
    run(mine, tmp_path / "out", threshold=40)
    np.testing.assert_array_equal(read_mask(tmp_path / "out/masks/p0_0_photo.png"), (grey > 40) * 255)


def test_a_few_masks_with_grey_edges_among_binary_ones_are_named(mine, tmp_path):
    """Two of eighty real masks were like that, and became labels 1 to 21 without a word."""
    masks = sorted((mine / "drawings").iterdir())
    for path in masks:
        values = read_mask(path)
        Image.fromarray(np.where(values > 0, 255, 0).astype(np.uint8)).save(path, optimize=False)
    edges = read_mask(masks[3]).copy()
    edges[0, :3] = (3, 7, 251)
    Image.fromarray(edges).save(masks[3], optimize=False)
    wanted = r"p1_3_photo.png: its mask holds values 0, 3, 7, 251, ...; 9 of 10 masks hold 0 and 255 alone"
    with pytest.raises(UserError, match=wanted):
        run(mine, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    run(mine, tmp_path / "out", threshold=127)
    written = [read_mask(path) for path in (tmp_path / "out" / "masks").iterdir()]
    assert {value for mask in written for value in np.unique(mask)} == {0, 255}


def test_unusable_files_are_named_and_nothing_is_left(mine, tmp_path):
    with pytest.raises(
        UserError, match=r"none of 10 images \(p0_0_photo, .*\) pairs with any of 10 files .* by \{id\}=\{id\}_gt"
    ):
        run(mine, tmp_path / "out", pattern="{id}={id}_gt")
    Image.new("L", (3, 4)).save(mine / "drawings" / "p4_9_manual1.gif")
    with pytest.raises(UserError, match=r"p4_9_manual1\.gif: mask of 3 x 4 pixels, but image p4_9_photo\.png is 9 x 8"):
        run(mine, tmp_path / "out")
    with pytest.raises(UserError, match="nowhere: no such folder"):
        prepare("folder", None, tmp_path / "out", images=mine / "nowhere", masks=mine)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_fraction": 1.0}, "--test_fraction and --val_fraction must be"),
        ({"test_fraction": -0.1}, "--test_fraction and --val_fraction must be"),
        ({"test_fraction": 0.6, "val_fraction": 0.5}, "--test_fraction and --val_fraction must be"),
        ({"images": None}, "needs --images DIR, --masks DIR unless"),
    ],
)
def test_bad_options(mine, tmp_path, options, message):
    given = {"images": mine / "photos", "masks": mine / "drawings"} | options
    with pytest.raises(ConfigError, match=message):
        prepare("folder", None, tmp_path / "out", **given)
    with pytest.raises(ConfigError, match="takes no --source"):
        prepare("folder", mine, tmp_path / "out", images=mine / "photos", masks=mine / "drawings")


def test_all_images_may_train_and_one_pair_is_too_few_to_split(mine, tmp_path):
    assert run(mine, tmp_path / "all", test_fraction=0.0)["splits"] == {"train": 10, "val": 0, "test": 0}
    for path in (mine / "photos").glob("p[1-4]*"):
        path.unlink()
    assert run(mine, tmp_path / "two")["splits"] == {"train": 1, "val": 0, "test": 1}
    (mine / "photos" / "p0_1_photo.png").unlink()
    with pytest.raises(UserError, match="1 pairs cannot be split into train, 0 val and 1 test"):
        run(mine, tmp_path / "out", pattern="{id}_photo={id}_manual1")


def test_what_is_said_where_nothing_pairs_or_is_there(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match=r"mine: holds no image \(.*\); it is empty"):
        prepare("folder", None, tmp_path / "out", images=tmp_path / "mine")
    for name in ("cat", "dog"):
        Image.new("L", (3, 4)).save(tmp_path / "mine" / f"{name}.png")
    nothing = (
        r"mine: none of 2 files \(cat, dog\) pairs with another by what their names share; give --masks DIR if the"
    )
    with pytest.raises(UserError, match=nothing):
        prepare("folder", None, tmp_path / "out", images=tmp_path / "mine")


def test_folders_and_other_masks_are_shown(tmp_path):
    """Two observers' masks, and two images in each folder: the other masks and the patients' pattern are offered."""
    for i in range(4):
        folder = tmp_path / "mine" / f"p{i // 2}"
        folder.mkdir(parents=True, exist_ok=True)
        for ending in ("", "_obs1", "_obs2"):
            Image.fromarray(np.eye(5, dtype=np.uint8)).save(folder / f"e{i}{ending}.png")
    summary = prepare("folder", None, tmp_path / "out", images=tmp_path / "mine")
    assert summary["lines"] == [
        "pairing by {id}={id}_obs1: 4 pairs",
        *[f"  p{i // 2}/e{i}.png  <->  p{i // 2}/e{i}_obs1.png" for i in range(4)],
        "the images have other masks too; to take those, give --pattern with",
        "  '{id}={id}_obs2': 4 pairs",
        "if a folder is a patient, keep it in one split: --pattern '{group}/{id}={group}/{id}_obs1'",
    ]
    assert summary["unmatched"] == []
    pattern = "{group}/{id}={group}/{id}_obs1"
    prepare("folder", None, tmp_path / "groups", images=tmp_path / "mine", pattern=pattern, folds=2)
    text = (tmp_path / "groups" / "data_split.csv").read_text()
    assert "e0.png,test,0,p0" in text or "e0.png,train,1,p0" in text


def test_images_of_one_name_in_two_folders_are_kept_apart(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / "mine" / folder).mkdir(parents=True)
        for name in ("1", "1_mask"):
            Image.fromarray(np.eye(5, dtype=np.uint8)).save(tmp_path / "mine" / folder / f"{name}.png")
    summary = prepare("folder", None, tmp_path / "out", images=tmp_path / "mine", test_fraction=0.5)
    assert summary["images"] == 2
    assert sorted(path.name for path in (tmp_path / "out" / "images").iterdir()) == ["a_1.png", "b_1.png"]
