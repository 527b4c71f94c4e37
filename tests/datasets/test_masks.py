"""Finding the mask of an image, and translating its values to labels."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.masks import MaskFinder, label_positions, read_labels
from utils.errors import UserError


@pytest.mark.parametrize("mask", ["a.b.gif", "a.b_mask.png"])
def test_mask_by_stem(tmp_path, mask):
    for name in (mask, "a.png", "a.b.txt", "a.b2.png"):
        (tmp_path / name).touch()
    assert MaskFinder(tmp_path).find("a.b.tif") == tmp_path / mask


def test_mask_in_the_image_s_folder(tmp_path):
    (tmp_path / "left").mkdir()
    (tmp_path / "left" / "a.png").touch()
    (tmp_path / "a.png").touch()
    assert MaskFinder(tmp_path).find("left/a.tif") == tmp_path / "left" / "a.png"


def test_no_mask_and_two_masks(tmp_path):
    (tmp_path / "b.png").touch()
    with pytest.raises(UserError, match=r"a\.png: no mask a\.\* or a_mask\.\*"):
        MaskFinder(tmp_path).find("a.png")
    (tmp_path / "b_mask.png").touch()
    with pytest.raises(UserError, match=r"b\.png: several masks in .*b\.png, b_mask\.png"):
        MaskFinder(tmp_path).find("b.png")
    with pytest.raises(UserError, match="no such folder"):
        MaskFinder(tmp_path / "none").find("a.png")


def test_values_become_positions_in_the_label_list():
    values = np.array([[0, 4], [7, 4]])
    positions = label_positions(values, [0, 7, 4], Path("m.png"))
    assert positions.dtype == np.uint8
    assert positions.tolist() == [[0, 2], [1, 2]]


def test_0_255_for_two_labels_only():
    values = np.array([[0, 255]])
    assert label_positions(values, [0, 1], Path("m.png")).tolist() == [[0, 1]]
    assert label_positions(values * 0 + 255, [0, 1], Path("m.png")).tolist() == [[1, 1]]
    with pytest.raises(UserError, match=r"m\.png: the mask holds values 0, 255; label_list allows 0, 1, 2"):
        label_positions(values, [0, 1, 2], Path("m.png"))


@pytest.mark.parametrize("found", [[0, 1, 255], [0, 2], [0, 254]])
def test_other_values(found):
    shown = ", ".join(map(str, found))
    with pytest.raises(UserError, match=rf"m\.png: the mask holds values {shown}; label_list allows 0, 1 "):
        label_positions(np.array([found]), [0, 1], Path("m.png"))


def test_sizes_must_agree(tmp_path):
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(tmp_path / "m.png")
    assert read_labels(tmp_path / "m.png", [0, 1], Path("i.png"), (4, 6)).shape == (4, 6)
    with pytest.raises(UserError, match=r"m\.png: mask of 6 x 4 pixels, but image i\.png is 4 x 6"):
        read_labels(tmp_path / "m.png", [0, 1], Path("i.png"), (6, 4))
