"""nnU-Net's raw data of either version: PNG, TIFF, several channels, NIfTI."""

import json

import numpy as np
import pytest
from PIL import Image

from datasets.io import read_image, read_mask
from datasets.preparation.prepare import prepare
from utils.config import load_config
from utils.errors import UserError


def write(root, names, part="Tr", channels=1, suffix=".png"):
    """Images and masks of 0, 1, 3 of these cases; returns the masks."""
    rng = np.random.default_rng(len(names))
    masks = {}
    for name in names:
        for kind in ("images", "labels"):
            (root / f"{kind}{part}").mkdir(parents=True, exist_ok=True)
        for channel in range(channels):
            shape = (7, 9, 3) if channels == 1 else (7, 9)
            values = rng.integers(0, 256, shape, dtype=np.uint8)
            Image.fromarray(values).save(root / f"images{part}" / f"{name}_{channel:04d}{suffix}")
        masks[name] = np.array([0, 1, 3], np.uint8)[rng.integers(0, 3, (7, 9))]
        Image.fromarray(masks[name]).save(root / f"labels{part}" / f"{name}{suffix}")
    return masks


@pytest.fixture
def mine(tmp_path):
    root = tmp_path / "nnUNet_raw" / "Dataset001_Mine"
    masks = write(root, [f"case_{i}" for i in range(5)])
    labels = {"background": 0, "artery": 1, "vein": 3}
    (root / "dataset.json").write_text(json.dumps({"labels": labels, "file_ending": ".png"}))
    return root, masks


def test_labels_keep_values_and_get_names(mine, tmp_path):
    root, masks = mine
    summary = prepare("nnunet", root.parent, tmp_path / "out")
    assert summary["splits"] == {"train": 3, "val": 0, "test": 2}
    for name, mask in masks.items():
        np.testing.assert_array_equal(read_mask(tmp_path / f"out/masks/{name}.png"), mask)
        image = read_image(root / "imagesTr" / f"{name}_0000.png")
        np.testing.assert_array_equal(read_image(tmp_path / f"out/images/{name}.png"), image)
    data = load_config(None, tmp_path / "out" / "data.yaml").require_data()
    assert (data.label_list, data.label_names) == ([0, 1, 3], ["Background", "artery", "vein"])


def test_test_images_with_labels_are_the_test_split_and_version_1_is_read(mine, tmp_path, rows):
    root, _ = mine
    write(root, ["t0", "t1"], "Ts", suffix=".tif")
    (root / "dataset.json").write_text(json.dumps({"labels": {"0": "background", "1": "artery", "3": "vein"}}))
    assert prepare("nnunet", root, tmp_path / "out")["splits"] == {"train": 5, "val": 0, "test": 2}
    assert [row["imgs"] for row in rows(tmp_path / "out") if row["split"] == "test"] == ["t0.png", "t1.png"]
    names = load_config(None, tmp_path / "out/data.yaml").require_data().label_names
    assert names == ["Background", "artery", "vein"]


def test_channels_become_colours(mine, tmp_path):
    root, _ = mine
    for path in (*root.glob("*Tr/*"),):
        path.unlink()
    write(root, ["a", "b"], channels=2)
    prepare("nnunet", root, tmp_path / "out")
    image = read_image(tmp_path / "out/images/a.png")
    for channel in range(2):
        np.testing.assert_array_equal(image[..., channel], read_mask(root / "imagesTr" / f"a_{channel:04d}.png"))
    assert not image[..., 2].any()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "labelsTr/case_1.png").unlink(), r"case_1_0000\.png: no label case_1 in .*labelsTr"),
        (lambda root: (root / "imagesTr/case_1_0000.png").unlink(), r"case_1\.png: no image case_1_0000 in"),
        (lambda root: (root / "dataset.json").unlink(), r"dataset\.json: missing; it names the labels"),
        (lambda root: (root / "dataset.json").write_text("{}"), r"dataset\.json: not a dataset\.json of nnU-Net"),
        (
            lambda root: (root / "dataset.json").write_text('{"labels": {"background": 0, "whole": [1, 3]}}'),
            "label whole is a region",
        ),
        (
            lambda root: (root / "dataset.json").write_text('{"labels": {"background": 0, "artery": 1, "ignore": 3}}'),
            "has the label 'ignore', which this project does not know",
        ),
        (
            lambda root: (root / "dataset.json").write_text('{"labels": {"background": 0, "artery": 1}}'),
            "holds the value 3, which dataset.json does not name",
        ),
        (
            lambda root: (root / "imagesTr/case_1_0000.png").rename(root / "imagesTr/case_1.png"),
            "must end in a channel's number, such as case_1_0000",
        ),
    ],
)
def test_bad_sets(mine, tmp_path, spoil, message):
    spoil(mine[0])
    with pytest.raises(UserError, match=message):
        prepare("nnunet", mine[0], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_slices_of_nifti_volumes(mine, tmp_path, rows):
    """Slices with a label become images, upright as nibabel's axes say, and a volume stays in one split."""
    nibabel = pytest.importorskip("nibabel", reason="nibabel is an extra")
    root, _ = mine
    for path in (*root.glob("*Tr/*"),):
        path.unlink()
    rng = np.random.default_rng(0)
    volumes = {}
    for name in ("v0", "v1", "v2"):
        volume, labels = rng.normal(0, 300, (5, 4, 6)).astype(np.float32), np.zeros((5, 4, 6), np.float32)
        labels[1:3, 2, 1:4] = 3
        volumes[name] = volume, labels
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), root / "imagesTr" / f"{name}_0000.nii.gz")
        nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), root / "labelsTr" / f"{name}.nii.gz")
    summary = prepare("nnunet", root, tmp_path / "out")
    assert (summary["images"], summary["slices_without_label"]) == (9, 9)
    splits = {(row["imgs"][:2], row["split"]) for row in rows(tmp_path / "out")}
    assert len(splits) == 3
    np.testing.assert_array_equal(read_mask(tmp_path / "out/masks/v0_2.png"), volumes["v0"][1][:, :, 2].T)
    image = read_image(tmp_path / "out/images/v0_2.png")[..., 0].astype(float)
    assert np.corrcoef(image.ravel(), volumes["v0"][0][:, :, 2].T.ravel())[0, 1] > 0.99
    (root / "labelsTr" / "v0.nii.gz").write_bytes(b"no")
    with pytest.raises(UserError, match=r"v0\.nii\.gz: not a readable NIfTI file"):
        prepare("nnunet", root, tmp_path / "x")
