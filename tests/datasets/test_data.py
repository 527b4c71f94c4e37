"""GeneralDataset: its samples, the randomness of their augmentation, and the errors of its constructor."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from transform_settings import EVERYTHING

from datasets.data import EpochSampler, GeneralDataset
from utils.errors import UserError


def test_every_foreground_label_of_every_image_is_a_sample(make_set):
    config = make_set({"train": 2, "test": 1}, labels=2)
    data = GeneralDataset(config, "train", train=False)
    described = [(s.image_path.name, s.label_value, s.label_name) for s in data.samples]
    assert described == [
        ("train0.png", 1, "L1"),
        ("train0.png", 2, "L2"),
        ("train1.png", 1, "L1"),
        ("train1.png", 2, "L2"),
    ]
    stored = np.asarray(Image.open(config.data.root_path / "masks" / "train1.png"))
    for index in (2, 3):
        np.testing.assert_array_equal(data.native_mask(index), stored == index - 1)
        assert data.native_mask(index).dtype == bool


def test_the_contents_of_a_sample(make_set):
    config = make_set({"test": 2}, img_size=24)
    sample = GeneralDataset(config, "test", train=False)[1]
    stored = np.asarray(Image.open(config.data.root_path / "images" / "test1.png"), np.float32)
    settings = config.data_transforms
    normalized = (stored - settings.pixel_mean) / settings.pixel_std
    assert (sample["image"].shape, sample["image"].dtype) == ((3, 24, 24), torch.float32)
    np.testing.assert_allclose(sample["image"][:, :, :20].permute(1, 2, 0), normalized, atol=1e-5)
    assert (sample["image"][:, :, 20:] == 0).all()
    mask = np.asarray(Image.open(config.data.root_path / "masks" / "test1.png"))
    assert (sample["mask"].shape, sample["mask"].dtype) == ((24, 24), torch.float32)
    np.testing.assert_array_equal(sample["mask"][:, :20], mask / 255)
    assert (sample["mask"][:, 20:] == 0).all()
    described = {key: sample[key] for key in ("label", "index", "name", "size", "valid")}
    assert described == {"label": "L1", "index": 1, "name": "test1.png", "size": (24, 20), "valid": (24, 20)}


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_same_seed_epoch_and_index_give_the_same_bits_whatever_the_workers(make_set, cache_bytes):
    data = GeneralDataset(
        make_set({"train": 3}, labels=2, **EVERYTHING), "train", True, seed=5, cache_bytes=cache_bytes
    )
    sampler = EpochSampler(data, seed=5)
    sampler.set_epoch(3)
    passes = []
    for workers in (0, 2):
        torch.manual_seed(workers)  # the global generator must not matter
        batches = list(DataLoader(data, batch_size=2, sampler=sampler, num_workers=workers))
        passes.append({key: torch.cat([batch[key] for batch in batches]) for key in ("image", "mask", "index")})
    assert sorted(passes[0]["index"].tolist()) == list(range(6))
    for key in passes[0]:
        assert torch.equal(passes[0][key], passes[1][key]), key


def test_cached_and_reread_images_are_the_same_bits(make_set):
    config = make_set({"train": 2}, a_min=10.0, a_max=200.0)
    kept, reread = (GeneralDataset(config, "train", True, cache_bytes=room) for room in (1 << 20, 0))
    assert (len(kept._cache), len(reread._cache)) == (2, 0)
    assert torch.equal(kept[1]["image"], reread[1]["image"])


def test_caching_resized_images_keeps_their_intensity(make_set):
    config = make_set({"test": 1}, a_min=1000.0, a_max=1100.0, img_size=36)
    values = np.random.default_rng(0).integers(900, 1200, (24, 20)).astype(np.uint16)
    Image.fromarray(values).save(config.data.root_path / "images" / "test0.png")
    data = GeneralDataset(config, "test", train=False)
    direct, _, _ = data.transform(np.repeat(values[..., None], 3, -1))
    assert (data[0]["image"] - direct).abs().max() < 1e-4


def test_another_epoch_seed_or_index_is_another_augmentation(make_set):
    config = make_set({"train": 1}, labels=2, **EVERYTHING)
    data = GeneralDataset(config, "train", True, seed=5)
    images = [data[0], data[(1, 0)], data[1], GeneralDataset(config, "train", True, seed=6)[0]]
    for i, one in enumerate(images):
        for other in images[:i]:
            assert not torch.equal(one["image"], other["image"])
    assert torch.equal(data[(0, 0)]["image"], data[0]["image"])


def test_without_train_nothing_is_random(make_set):
    data = GeneralDataset(make_set({"train": 1}, **EVERYTHING), "train", train=False)
    assert torch.equal(data[(0, 0)]["image"], data[(1, 0)]["image"])


def test_the_caller_s_random_numbers_are_left_alone(make_set):
    data = GeneralDataset(make_set({"train": 1}, **EVERYTHING), "train", True)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    data[0]
    assert torch.equal(torch.rand(3), expected)


def test_sampler_order():
    data = list(range(20))
    sampler = EpochSampler(data, seed=1)
    first = list(sampler)
    assert [epoch for epoch, _ in first] == [0] * 20
    assert sorted(index for _, index in first) == data
    assert first == list(sampler) == list(EpochSampler(data, seed=1))
    sampler.set_epoch(1)
    second = list(sampler)
    assert [epoch for epoch, _ in second] == [1] * 20
    orders = [[index for _, index in order] for order in (first, second, list(EpochSampler(data, seed=2)))]
    assert orders[0] != orders[1]
    assert orders[0] != orders[2]
    assert len(sampler) == 20


def test_sixteen_bit_image_at_its_own_size_is_stretched_from_its_window(make_set):
    config = make_set({"test": 1}, a_min=1000.0, a_max=2020.0)
    values = np.tile(np.array([0, 1000, 1004, 2020, 9000], np.uint16), (24, 4))
    Image.fromarray(values).save(config.data.root_path / "images" / "test0.png")
    native = GeneralDataset(config, "test", train=False).native_image(0)
    assert (native.shape, native.dtype) == ((24, 20, 3), np.uint8)
    np.testing.assert_array_equal(native[0, :5, 0], [0, 0, 1, 255, 255])


def test_iteration_ends_and_indices_are_checked(make_set):
    data = GeneralDataset(make_set({"test": 2}), "test", train=False)
    assert len(list(data)) == len(data) == 2
    assert data[-1]["index"] == 1
    with pytest.raises(IndexError):
        data[2]


@pytest.mark.parametrize("cache_bytes", [0, 1 << 30])
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("size", r"train1\.png: mask of 5 x 4 pixels, but image train1\.png is 20 x 24"),
        ("value", r"masks/train1\.png: the mask holds values 0, 9; label_list allows 0, 1"),
        ("no mask", r"train1\.png: no mask"),
        ("no image", r"images/train1\.png: no such image"),
        ("damaged mask", r"masks/train1\.png: not a readable image"),
    ],
)
def test_a_bad_file_is_found_at_the_start(make_set, fault, message, cache_bytes):
    config = make_set({"train": 3})
    image, mask = (config.data.root_path / folder / "train1.png" for folder in ("images", "masks"))
    if fault == "size":
        Image.fromarray(np.zeros((4, 5), np.uint8)).save(mask)
    elif fault == "value":
        Image.fromarray(np.eye(24, 20, dtype=np.uint8) * 9).save(mask)
    elif fault == "damaged mask":
        mask.write_text("text")
    else:
        (mask if fault == "no mask" else image).unlink()
    with pytest.raises(UserError, match=message) as caught:
        GeneralDataset(config, "train", train=True, cache_bytes=cache_bytes)
    assert "\n" not in str(caught.value)


def test_an_empty_split(make_set):
    with pytest.raises(UserError, match=r"data_split\.csv: no image of split 'val'"):
        GeneralDataset(make_set({"train": 1}), "val", train=False)
