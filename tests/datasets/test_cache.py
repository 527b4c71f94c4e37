"""The cache of images: lossless, compact, and within its limit."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from datasets.cache import ImageCache, compact
from datasets.data import EpochSampler, GeneralDataset
from utils.errors import UserError


def floats(levels: np.ndarray) -> np.ndarray:
    return levels.astype(np.float32) / np.float32(np.iinfo(levels.dtype).max)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("grey", [False, True])
def test_every_grey_level_is_cached_exactly_in_the_file_s_depth(dtype, grey):
    levels = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)
    image = np.stack([levels, levels if grey else levels[::-1], levels])[:, None]
    kept = compact(floats(image))
    assert (kept.dtype, len(kept)) == (dtype, 1 if grey else 3)
    np.testing.assert_array_equal(np.broadcast_to(kept, image.shape), image)
    np.testing.assert_array_equal(np.broadcast_to(floats(kept), image.shape), floats(image))


def test_a_level_that_eight_bits_cannot_hold_is_cached_in_sixteen():
    image = np.full((3, 4, 5), 0.5, np.float32)
    image[:, 0, 0] = 1
    kept = compact(image)
    assert (kept.dtype, kept.shape) == (np.uint16, (1, 4, 5))
    assert np.abs(floats(kept) - image).max() <= 0.5 / 65535


def pair(pixels: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((1, 1, pixels), np.uint16), np.zeros((1, pixels), np.uint8)


def test_an_image_reserves_its_largest_size_and_uses_its_real_one():
    cache = ImageCache(1000)
    assert cache.fitting([]) == 0
    assert [cache.fitting([100, 42]), cache.fitting([100, 43]), cache.fitting([143, 1])] == [2, 1, 0]
    cache.put(Path("a"), pair(100))
    assert (cache.used, cache.fitting([100, 1])) == (300, 1)
    cache.put(Path("b"), pair(233))
    assert (cache.used, cache.fitting([1])) == (999, 0)
    with pytest.raises(ValueError, match="3 bytes are more than the 1 left"):
        cache.put(Path("c"), pair(1))
    assert len(cache) == 2


def test_cached_arrays_are_read_only():
    cache = ImageCache(1000)
    cache.put(Path("a"), pair(4))
    with pytest.raises(ValueError, match="read-only"):
        cache.get(Path("a"))[0][0] = 1
    assert cache.get(Path("b")) is None


@pytest.mark.parametrize(("room", "expected"), [(0, 0), (6047, 0), (6048, 1), (12_096, 2), (20_000, 3), (1 << 20, 8)])
def test_a_dataset_caches_the_first_images_within_its_bytes(make_set, room, expected):
    """32 x 27 pixels each, in 16 bits since they were resized: 6048 bytes."""
    data = GeneralDataset(make_set({"train": 8}, img_size=32), "train", True, cache_bytes=room)
    kept = [data._cache.get(sample.image_path) for sample in data.samples]
    assert sum(array.nbytes for pair in kept if pair for array in pair) == data._cache.used <= room
    assert [pair is not None for pair in kept] == [True] * expected + [False] * (8 - expected)


def test_bytes_reserved_but_not_used_go_to_later_images(make_set):
    """8-bit images use 4 bytes a pixel of the 7 that they reserve, so in the end all of them fit."""
    data = GeneralDataset(make_set({"train": 8}, img_size=24), "train", True, cache_bytes=24 * 20 * (4 * 8 + 3))
    assert (len(data._cache), data._cache.used) == (8, 24 * 20 * 4 * 8)


def test_eight_bit_files_at_their_own_size_take_one_byte_a_value(make_set):
    config = make_set({"train": 2}, img_size=24)
    Image.fromarray(np.arange(480, dtype=np.uint8).reshape(24, 20)).save(config.data.root_path / "images/train1.png")
    data = GeneralDataset(config, "train", train=False)
    assert data._cache.used == 24 * 20 * ((3 + 1) + (1 + 1))
    assert torch.equal(data[1]["image"], GeneralDataset(config, "train", train=False, cache_bytes=0)[1]["image"])


def test_a_pickled_dataset_has_an_empty_cache(make_set):
    data = GeneralDataset(make_set({"train": 3}, use_rotation=True), "train", True)
    sent = pickle.loads(pickle.dumps(data))
    assert (len(data._cache), len(sent._cache), sent._cache.used) == (3, 0, 0)
    for index in range(3):
        assert torch.equal(sent[(1, index)]["image"], data[(1, index)]["image"])
        assert torch.equal(sent[(1, index)]["mask"], data[(1, index)]["mask"])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_beyond_the_cache_is_named_on_access(make_set, workers):
    config = make_set({"train": 3})
    (config.data.root_path / "images/train2.png").write_bytes(
        (config.data.root_path / "images/train2.png").read_bytes()[:300]  # the header is whole
    )
    with pytest.raises(UserError, match=r"images/train2\.png: not a readable image"):
        GeneralDataset(config, "train", True)
    data = GeneralDataset(config, "train", True, cache_bytes=32 * 27 * 7 * 2)
    assert len(data._cache) == 2
    with pytest.raises(UserError, match=r"images/train2\.png: not a readable image"):
        list(DataLoader(data, sampler=EpochSampler(data), num_workers=workers))
