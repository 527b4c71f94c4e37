"""What is written can be read back to the bit; what can't be kept is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.io import read_image, read_mask
from datasets.writer import SetWriter, binary_mask, random_split, write_png
from utils.errors import UserError

GREY = np.array([[0, 7, 255], [128, 1, 2]], np.uint8)
MASK = GREY > 6


@pytest.mark.parametrize(
    "image", [GREY, GREY.astype(np.uint16) * 257, np.stack([GREY, GREY[::-1], GREY + 1], -1)], ids=["8", "16", "rgb"]
)
def test_images_keep_their_bits_and_masks_become_0_255(tmp_path, image):
    writer = SetWriter(tmp_path / "set")
    assert writer.add("a", image, MASK) == "a.png"
    written = read_image(tmp_path / "set/images/a.png")
    assert written.dtype == image.dtype
    np.testing.assert_array_equal(written, image if image.ndim == 3 else np.stack([image] * 3, -1))
    np.testing.assert_array_equal(read_mask(tmp_path / "set/masks/a.png"), MASK * 255)


def test_an_image_file_is_decoded_and_a_mask_of_integers_is_kept(tmp_path):
    deep = GREY.astype(np.uint16) * 100
    Image.fromarray(deep).save(tmp_path / "b.tif")
    writer = SetWriter(tmp_path / "set")
    writer.add("b", tmp_path / "b.tif", MASK * 3)
    np.testing.assert_array_equal(read_image(tmp_path / "set/images/b.png")[..., 0], deep)
    np.testing.assert_array_equal(read_mask(tmp_path / "set/masks/b.png"), MASK * 3)


def test_refusals(tmp_path):
    writer = SetWriter(tmp_path / "set")
    writer.add("a", GREY, MASK)
    with pytest.raises(UserError, match=r"a\.png: two images of that name"):
        writer.add("a", GREY, MASK)
    with pytest.raises(UserError, match=r"b: image of \(2, 3\), but mask of \(3, 2\)"):
        writer.add("b", GREY, MASK.T)
    with pytest.raises(UserError, match=r"c\.png: 16-bit colour"):
        write_png(tmp_path / "c.png", np.array([[[1, 2, 3]]], np.uint16))
    assert writer.names == ["a.png"]
    assert [p.name for p in (tmp_path / "set/images").iterdir()] == ["a.png"]
    assert not (tmp_path / "c.png").exists()


def test_finish_writes_the_split_in_the_order_of_adding(tmp_path):
    writer = SetWriter(tmp_path / "set")
    for stem in ("b", "a"):
        writer.add(stem, GREY, MASK)
    counts = writer.finish({"a.png": "train", "b.png": "test"})
    assert counts == {"train": 1, "val": 0, "test": 1}
    assert (tmp_path / "set/data_split.csv").read_bytes() == b"imgs,split\nb.png,test\na.png,train\n"


def test_binary_masks():
    path = Path("m.png")
    np.testing.assert_array_equal(binary_mask(np.array([[0, 1]]), path), [[False, True]])
    np.testing.assert_array_equal(binary_mask(np.array([[0, 0]]), path), [[False, False]])
    np.testing.assert_array_equal(binary_mask(np.array([[0, 100, 101, 9]]), path, 100), [[False, False, True, False]])
    for values in ([0, 1, 255], [255, 255], [1, 2]):
        with pytest.raises(UserError, match=r"m\.png: expected a mask of 0 and one other value, found"):
            binary_mask(np.array([values]), path)


def test_a_random_split_has_the_counts_and_the_seed_s_draw():
    names = [f"{i}.png" for i in range(20)]
    drawn = random_split(names, {"train": 14, "test": 6}, 0)
    assert list(drawn) == names
    assert sorted(drawn.values()) == ["test"] * 6 + ["train"] * 14
    assert drawn == random_split(names, {"train": 14, "test": 6}, 0)
    assert drawn != random_split(names, {"train": 14, "test": 6}, 1)
    with pytest.raises(UserError, match="20 images don't make 14 train \\+ 7 test"):
        random_split(names, {"train": 14, "test": 7}, 0)
