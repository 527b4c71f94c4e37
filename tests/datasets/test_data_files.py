"""GeneralDataset on sets as people have them: label values with gaps, folders, grey and deep images, odd sizes."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import datasets.data
from datasets.data import GeneralDataset
from utils.errors import ConfigError


def test_label_values_with_gaps_and_beyond_eight_bits(make_set):
    config = make_set({"train": 1}, labels=3, img_size=32)
    config.data.label_list = [0, 300, 7, 9]
    stored = np.zeros((24, 20), np.uint16)
    stored[:5], stored[5:9, :3] = 300, 7
    Image.fromarray(stored).save(config.data.root_path / "masks" / "train0.png")
    data = GeneralDataset(config, "train", train=False)
    assert [sample.label_value for sample in data.samples] == [300, 7, 9]
    for index, label in enumerate([300, 7, 9]):
        np.testing.assert_array_equal(data.native_mask(index), stored == label)
    sizes = [int(data[index]["mask"].sum()) for index in range(3)]
    assert sizes[0] > sizes[1] > sizes[2] == 0  # a label that isn't in the image is a sample with an empty mask


def test_native_masks_of_one_image_decode_its_file_once(make_set, monkeypatch):
    data = GeneralDataset(make_set({"train": 2}, labels=3), "train", train=False)
    read = []
    plain = datasets.data.read_labels
    monkeypatch.setattr(datasets.data, "read_labels", lambda path, *rest: read.append(path.name) or plain(path, *rest))
    masks = [data.native_mask(index) for index in range(len(data.samples))]
    assert read == ["train0.png", "train1.png"]
    for sample, mask in zip(data.samples, masks, strict=True):
        np.testing.assert_array_equal(mask, np.asarray(Image.open(sample.mask_path)) == sample.label_value)


@pytest.mark.parametrize("foreground", [1, 255])
def test_masks_of_indices_and_of_0_255_are_the_same(make_set, foreground):
    config = make_set({"train": 1})
    path = config.data.root_path / "masks" / "train0.png"
    expected = np.asarray(Image.open(path)) > 0
    Image.fromarray(expected.astype(np.uint8) * foreground).save(path)
    data = GeneralDataset(config, "train", train=False)
    np.testing.assert_array_equal(data.native_mask(0), expected)
    assert data[0]["mask"].unique().tolist() == [0.0, 1.0]


def test_images_in_folders_with_masks_of_the_other_name(make_set):
    config = make_set({"train": 2})
    root = config.data.root_path
    for folder in ("images", "masks"):
        (root / folder / "left").mkdir()
    (root / "images/train1.png").rename(root / "images/left/eye.png")
    (root / "masks/train1.png").rename(root / "masks/left/eye_mask.png")
    (root / "data_split.csv").write_text("imgs,split\nleft/eye.png,train\ntrain0.png,train\n")
    data = GeneralDataset(config, "train", train=False)
    assert [s.mask_path.relative_to(root).as_posix() for s in data.samples] == [
        "masks/left/eye_mask.png",
        "masks/train0.png",
    ]
    assert [s.name for s in data.samples] == [data[i]["name"] for i in range(2)] == ["left/eye.png", "train0.png"]


def test_only_the_split_asked_for_is_opened(make_set):
    config = make_set({"train": 1, "test": 1})
    (config.data.root_path / "images/test0.png").unlink()
    assert len(GeneralDataset(config, "train", train=False)) == 1


def test_images_of_different_sizes_and_kinds_make_one_batch(make_set):
    config = make_set({"test": 3}, img_size=32)
    root, shapes = config.data.root_path, [(24, 20), (7, 50), (100, 3)]
    kinds = [np.full((*shapes[0], 4), 90, np.uint8), np.full(shapes[1], 23130, np.uint16), np.full(shapes[2], 90 > 0)]
    for i, (shape, image) in enumerate(zip(shapes, kinds, strict=True)):
        Image.fromarray(image).save(root / f"images/test{i}.png")
        Image.fromarray(np.full(shape, 255, np.uint8)).save(root / f"masks/test{i}.png")
    data = GeneralDataset(config, "test", train=False)
    batch = next(iter(DataLoader(data, batch_size=3, sampler=[(0, i) for i in range(3)])))
    assert batch["image"].shape == (3, 3, 32, 32)
    assert torch.stack(batch["size"], 1).tolist() == [list(shape) for shape in shapes]
    assert torch.stack(batch["valid"], 1).tolist() == [[32, 27], [4, 32], [32, 1]]
    # 90 of 255 and 23130 of 65535 are the same grey.
    assert torch.equal(batch["image"][0, :, 0, 0], batch["image"][1, :, 0, 0])
    assert [int(mask.sum()) for mask in batch["mask"]] == [32 * 27, 4 * 32, 32]
    assert [data.native_image(i).shape for i in range(3)] == [(*shape, 3) for shape in shapes]
    assert np.unique(data.native_image(1)).tolist() == [90]


def test_native_image_is_rounded_not_cut(make_set):
    config = make_set({"test": 1})
    values = np.tile(np.array([0, 128, 129, 65535], np.uint16), (24, 5))
    Image.fromarray(values).save(config.data.root_path / "images/test0.png")
    native = GeneralDataset(config, "test", train=False).native_image(0)
    assert native[0, :4, 0].tolist() == [0, 0, 1, 255]


def test_no_generator_but_its_own_is_touched(make_set):
    data = GeneralDataset(make_set({"train": 1}, use_rotation=True, use_brightness=True), "train", True)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    data[(2, 0)]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]


def test_a_sample_may_be_changed_in_place(make_set):
    """A sample is a copy of what the cache holds."""
    data = GeneralDataset(make_set({"test": 1}, img_size=24), "test", train=False)
    first = data[0]
    image, mask = first["image"].clone(), first["mask"].clone()
    first["image"].zero_()
    first["mask"].fill_(7)
    assert torch.equal(data[0]["image"], image)
    assert torch.equal(data[0]["mask"], mask)


def test_a_cache_of_some_images(make_set):
    config = make_set({"train": 3}, img_size=32)
    kept, some = (
        GeneralDataset(config, "train", True),
        GeneralDataset(config, "train", True, cache_bytes=32 * 32 * 7 * 2),
    )
    assert (len(kept._cache), len(some._cache)) == (3, 2)
    for index in range(3):
        assert torch.equal(kept[index]["image"], some[index]["image"])
        assert kept[index]["size"] == some[index]["size"] == (24, 20)


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_a_sixteen_bit_image_that_an_eight_bit_window_would_turn_white(make_set, cache_bytes):
    config = make_set({"test": 2}, a_min=0.0, a_max=255.0)
    path = config.data.root_path / "images/test1.png"
    Image.fromarray(np.linspace(0, 65535, 480).astype(np.uint16).reshape(24, 20)).save(path)
    message = r"images/test1\.png: data_transforms: a_max \(255\) would turn (99|100)% of this 16-bit image white"
    with pytest.raises(ConfigError, match=message):
        GeneralDataset(config, "test", train=False, cache_bytes=cache_bytes)[1]
    Image.fromarray(np.linspace(0, 255, 480).astype(np.uint16).reshape(24, 20)).save(path)
    assert len(GeneralDataset(config, "test", train=False)[1]["image"].unique()) > 200
