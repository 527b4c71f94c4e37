"""What is written can be read back bit for bit; what cannot be stored is refused."""

from functools import partial

import numpy as np
import pytest
from PIL import Image

from datasets.converters.plan import Case
from datasets.io import read_image, read_mask
from datasets.preparation.writer import write_cases, write_png, write_split
from utils.errors import UserError

GREY = np.array([[0, 7, 255], [128, 1, 2]], np.uint8)
MASK = GREY > 6


def both(image, mask):
    return image, mask


def case(stem, image=GREY, mask=MASK, **more):
    return Case(stem, partial(both, image, mask), **more)


@pytest.mark.parametrize(
    "image", [GREY, GREY.astype(np.uint16) * 257, np.stack([GREY, GREY[::-1], GREY + 1], -1)], ids=["8", "16", "rgb"]
)
def test_images_keep_their_bits_and_masks_become_0_255(tmp_path, image):
    write_cases(tmp_path / "set", [case("a", image)], "toy")
    written = read_image(tmp_path / "set/images/a.png")
    assert written.dtype == image.dtype
    np.testing.assert_array_equal(written, image if image.ndim == 3 else np.stack([image] * 3, -1))
    np.testing.assert_array_equal(read_mask(tmp_path / "set/masks/a.png"), MASK * 255)


@pytest.mark.parametrize(("depth", "mode"), [(np.uint8, "L"), (np.uint16, "I;16")])
def test_grey_of_three_channels_is_written_as_grey(tmp_path, depth, mode):
    image = np.stack([GREY.astype(depth)] * 3, -1)
    write_png(tmp_path / "a.png", image)
    with Image.open(tmp_path / "a.png") as written:
        assert written.mode == mode
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), image)


def test_masks_of_integers_are_kept(tmp_path):
    write_cases(tmp_path / "set", [case("b", mask=MASK * 3)], "toy")
    np.testing.assert_array_equal(read_mask(tmp_path / "set/masks/b.png"), MASK * 3)


@pytest.mark.parametrize(
    ("cases", "message"),
    [
        ([case("a"), case("a")], r"a\.png: two images of this name"),
        ([case("a"), case("A")], r"a\.png: two images of this name"),
        ([case("a"), case("b", mask=MASK.T)], r"b: image of \(2, 3\), but mask of \(3, 2\)"),
        ([case("a"), case("b", mask=MASK * 256)], "b: a mask with label 256"),
        ([case("a"), case("b", np.array([[[1, 2, 3]]], np.uint16), MASK[:1, :1])], r"b\.png: 16-bit colour"),
    ],
)
def test_refusals(tmp_path, cases, message):
    with pytest.raises(UserError, match=message):
        write_cases(tmp_path / "set", cases, "toy")


def test_the_split_is_written_in_the_order_of_the_cases(tmp_path):
    cases = [case("b", group="p1"), case("a")]
    splits = {"a.png": "train", "b.png": "test"}
    write_split(tmp_path, cases, splits)
    assert (tmp_path / "data_split.csv").read_bytes() == b"imgs,split,group\nb.png,test,p1\na.png,train,a\n"
    write_split(tmp_path, [case("b"), case("a")], splits)
    assert (tmp_path / "data_split.csv").read_bytes() == b"imgs,split\nb.png,test\na.png,train\n"
    write_split(tmp_path, cases, splits, {"a.png": 1, "b.png": 0})
    expected = b"imgs,split,fold,group\nb.png,test,0,p1\na.png,train,1,a\n"
    assert (tmp_path / "data_split.csv").read_bytes() == expected
