"""MedSAM's npz files: single images and volumes."""

import io

import numpy as np
import pytest

from datasets.io import read_image, read_mask
from datasets.preparation.prepare import prepare
from utils.config import load_config
from utils.errors import ConfigError, UserError


@pytest.fixture
def mine(tmp_path):
    """A colour image, a volume of 4 uint8 slices (one empty), and one of floats; masks of 0, 2, 5."""
    rng = np.random.default_rng(0)
    (tmp_path / "mine" / "ct").mkdir(parents=True)
    masks = np.array([0, 2, 5], np.uint8)[rng.integers(0, 3, (4, 6, 7))]
    masks[1] = 0
    arrays = {
        "photo": {"imgs": rng.integers(0, 256, (6, 7, 3), dtype=np.uint8), "gts": masks[0]},
        "ct/a": {"imgs": rng.integers(0, 256, (4, 6, 7), dtype=np.uint8), "gts": masks, "spacing": np.ones(3)},
        "ct/b": {"imgs": rng.normal(size=(4, 6, 7, 3)), "gts": masks.astype(np.int32)},
    }
    for name, content in arrays.items():
        np.savez_compressed(tmp_path / "mine" / f"{name}.npz", **content)
    return tmp_path / "mine", arrays


def test_images_and_slices(mine, tmp_path, rows):
    root, arrays = mine
    summary = prepare("npz", root, tmp_path / "out")
    assert (summary["images"], summary["slices_without_label"]) == (7, 2)
    np.testing.assert_array_equal(read_image(tmp_path / "out/images/photo.png"), arrays["photo"]["imgs"])
    np.testing.assert_array_equal(read_image(tmp_path / "out/images/ct_a_2.png")[..., 0], arrays["ct/a"]["imgs"][2])
    for name in ("a", "b"):
        np.testing.assert_array_equal(read_mask(tmp_path / f"out/masks/ct_{name}_3.png"), arrays["ct/a"]["gts"][3])
    shown = read_image(tmp_path / "out/images/ct_b_3.png").astype(float)
    assert np.corrcoef(shown.ravel(), arrays["ct/b"]["imgs"][3].ravel())[0, 1] > 0.97
    assert len({(row["imgs"][:4], row["split"]) for row in rows(tmp_path / "out")}) == 3  # a volume in one split
    data = load_config(None, tmp_path / "out/data.yaml").require_data()
    assert (data.label_list, data.label_names) == ([0, 2, 5], ["Background", "Label 2", "Label 5"])


def test_names_and_numbered_objects(mine, tmp_path):
    root, arrays = mine
    prepare("npz", root, tmp_path / "named", classes=["vein=5", "artery=2"])
    expected = np.array([0, 0, 2, 0, 0, 1])[arrays["photo"]["gts"]]
    np.testing.assert_array_equal(read_mask(tmp_path / "named/masks/photo.png"), expected)
    prepare("npz", root, tmp_path / "one", threshold=0)
    np.testing.assert_array_equal(read_mask(tmp_path / "one/masks/photo.png"), (arrays["photo"]["gts"] > 0) * 255)
    data = load_config(None, tmp_path / "one/data.yaml").require_data()
    assert (data.label_list, data.label_names) == ([0, 1], ["Background", "Foreground"])
    with pytest.raises(ConfigError, match="npz files hold values, no colours"):
        prepare("npz", root, tmp_path / "x", classes=["vein=#ff0000"])


def npy(values):
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def broken_zip():
    """An archive whose compressed bytes are damaged, so that zlib refuses them."""
    file = io.BytesIO()
    np.savez_compressed(file, imgs=np.arange(64).reshape(8, 8), gts=np.eye(8, dtype=np.uint8))
    content = bytearray(file.getvalue())
    start = content.index(b"imgs.npy") + 30
    content[start : start + 20] = b"\xff" * 20
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"x": np.zeros(3)}, r"bad\.npz: holds x; expected imgs and gts"),
        (
            {"imgs": np.zeros((4, 4)), "gts": np.zeros((4, 5), np.uint8)},
            r"imgs \(4, 4\), gts \(4, 5\) of uint8; expected",
        ),
        ({"imgs": np.zeros((4, 4)), "gts": np.zeros((4, 4))}, "of float64; expected"),
        ({"imgs": np.zeros((4, 4, 2)), "gts": np.zeros((4, 4), np.uint8)}, "an image has 1 or 3 channels"),
        (b"no archive", r"bad\.npz: not a readable npz file"),
        (npy(np.zeros((4, 4))), r"bad\.npz: not a readable npz file"),  # a renamed .npy
        (broken_zip(), r"bad\.npz: not a readable npz file"),
    ],
)
def test_bad_files(tmp_path, content, message):
    (tmp_path / "mine").mkdir()
    if isinstance(content, bytes):
        (tmp_path / "mine" / "bad.npz").write_bytes(content)
    else:
        np.savez(tmp_path / "mine" / "bad.npz", **content)
    with pytest.raises(UserError, match=message):
        prepare("npz", tmp_path / "mine", tmp_path / "out")


def test_negative_labels_are_none(tmp_path):
    """-1 would be written as 255."""
    (tmp_path / "mine").mkdir()
    for name in "ab":
        np.savez(tmp_path / "mine" / f"{name}.npz", imgs=np.zeros((4, 4)), gts=np.eye(4, dtype=np.int8) - 1)
    with pytest.raises(UserError, match=r"\.npz: 2 values from -1 to 0 are not labels"):
        prepare("npz", tmp_path / "mine", tmp_path / "out")


def test_nothing_there(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.npy").touch()
    with pytest.raises(UserError, match=r"no \.npz file below it; it holds 1 \.npy"):
        prepare("npz", tmp_path / "mine", tmp_path / "out")
