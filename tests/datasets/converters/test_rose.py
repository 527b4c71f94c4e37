"""ROSE: pairs by stem with any suffix, subsets, the same numbers in train and test."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.preparation.prepare import prepare
from utils.errors import ConfigError, UserError

SIZES = {"SVC": (30, 9), "DVC": (30, 9), "SVC_DVC": (30, 9), "ROSE-2": (90, 22)}


@pytest.fixture
def rose(tmp_path) -> tuple[Path, dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]]:
    """The official layout with small images, and the truth by subset. Masks have grey edges."""
    root, rng, truth = tmp_path / "ROSE", np.random.default_rng(0), {}
    for subset, counts in SIZES.items():
        truth[subset] = {}
        for part, count in zip(("train", "test"), counts, strict=True):
            folder = root / "ROSE-2" / part if subset == "ROSE-2" else root / "ROSE-1" / subset / part
            images = folder / ("original" if subset == "ROSE-2" else "img")
            others = ("gt",) if subset != "SVC" else ("gt", "thick_gt", "thin_gt")
            for path in (images, *(folder / other for other in others)):
                path.mkdir(parents=True)
            for number in range(1, count + 1):
                image = rng.integers(0, 256, (8, 9), dtype=np.uint8)
                vessels = rng.random((8, 9)) < 0.3
                vessels[0, 0] = True
                mask = np.where(vessels, rng.integers(129, 256, (8, 9)), rng.integers(0, 129, (8, 9))).astype(np.uint8)
                Image.fromarray(image).save(images / f"{number:02d}.{'png' if subset == 'SVC_DVC' else 'tif'}")
                Image.fromarray(mask).save(folder / "gt" / f"{number:02d}.tif")
                for other in others[1:]:
                    Image.fromarray(255 - mask).save(folder / other / f"{number:02d}.tif")
                truth[subset][f"{part}_{number:02d}.png"] = image, vessels
            (images / "Thumbs.db").write_bytes(b"no image")
    return root, truth


@pytest.mark.parametrize("subset", ["SVC", "DVC", "SVC_DVC"])
def test_the_papers_split_is_drawn_from_the_train_folder(rose, tmp_path, rows, assert_written, subset):
    root, truth = rose
    options = {} if subset == "SVC" else {"subset": subset}  # it is the default
    summary = prepare("rose", root, tmp_path / "out", **options)
    train = {name: pair for name, pair in truth[subset].items() if name.startswith("train")}
    assert_written(tmp_path / "out", train)
    assert summary["splits"] == {"train": 22, "val": 0, "test": 8}
    assert [row["imgs"] for row in rows(tmp_path / "out")] == sorted(train)


@pytest.mark.parametrize(("subset", "split"), [("SVC", "official"), ("SVC_DVC", "official"), ("ROSE-2", None)])
def test_the_official_split(rose, tmp_path, rows, assert_written, subset, split):
    root, truth = rose
    summary = prepare("rose", root, tmp_path / "out", subset=subset, split=split)
    assert_written(tmp_path / "out", truth[subset])
    assert summary["splits"] == dict(
        zip(("train", "val", "test"), (SIZES[subset][0], 0, SIZES[subset][1]), strict=True)
    )
    assert all(row["imgs"].startswith(row["split"]) for row in rows(tmp_path / "out"))


@pytest.mark.parametrize("top", [True, False])
def test_an_archive_and_inner_folders_give_the_same_files(rose, tmp_path, pack, contents, top):
    prepare("rose", rose[0], tmp_path / "tree")
    prepare("rose", pack(rose[0], tmp_path / "ROSE.zip", top), tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "tree")
    for number, inner in enumerate(("ROSE-1", "ROSE-1/SVC")):
        prepare("rose", rose[0] / inner, tmp_path / f"inner{number}")
        assert contents(tmp_path / f"inner{number}") == contents(tmp_path / "tree")


def test_another_subset_does_not_replace_the_one_requested(rose, tmp_path):
    with pytest.raises(UserError, match="ROSE-2: no ROSE-1/SVC/train in it"):
        prepare("rose", rose[0] / "ROSE-2", tmp_path / "out")


def test_the_papers_split_of_rose_2(rose, tmp_path):
    with pytest.raises(ConfigError, match="ROSE-2 has no such split"):
        prepare("rose", rose[0], tmp_path / "out", subset="ROSE-2", split="paper")
    assert prepare("rose", rose[0], tmp_path / "out", subset="ROSE-2", folds=8)["folds"] == [14] * 8


@pytest.mark.parametrize(
    ("folder", "message"), [("gt", r"img/07\.tif: no train/gt file belongs"), ("img", r"gt/07\.tif: no image belongs")]
)
def test_a_missing_partner_is_named(rose, tmp_path, folder, message):
    (rose[0] / "ROSE-1/SVC/train" / folder / "07.tif").unlink()
    with pytest.raises(UserError, match=message):
        prepare("rose", rose[0], tmp_path / "out")
