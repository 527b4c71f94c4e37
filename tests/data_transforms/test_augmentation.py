"""The augmentation against torchvision's own transforms of tv_tensors, composed plainly: the same bits."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from data_transforms.augmentation import rotate_and_scale
from data_transforms.data_transforms import Data_Transform

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
SWITCHES = [
    "use_random_crop",
    "use_brightness",
    "use_saturation",
    "use_horizontal_flip",
    "use_vertical_flip",
    "use_rotation",
    "use_random_scale",
]


def settings(img_size=48, **changes) -> SimpleNamespace:
    values = dict.fromkeys(SWITCHES, False) | {
        "a_min": None,
        "a_max": None,
        "img_size": img_size,
        "rotation_angle": 30.0,
        "saturation": 0.4,
        "brightness": 0.4,
        "random_scale": [0.7, 1.4],
        "pixel_mean": MEAN,
        "pixel_std": STD,
    }
    return SimpleNamespace(**(values | changes))


def plain(chosen, image, mask):
    """The same pipeline by torchvision alone: float image (3, h, w) in 0..1 and mask (h, w), loaded already."""
    pair = tv_tensors.Image(torch.from_numpy(image)), tv_tensors.Mask(torch.from_numpy(mask)[None])
    steps = [v2.Identity()]
    if chosen.use_random_crop:
        steps.append(v2.RandomCrop(tuple(min(chosen.img_size, side) for side in mask.shape)))
    if chosen.use_brightness or chosen.use_saturation:
        amounts = chosen.brightness * chosen.use_brightness, chosen.saturation * chosen.use_saturation
        steps.append(v2.ColorJitter(brightness=amounts[0], saturation=amounts[1]))
    steps.append(v2.Normalize([m / 255 for m in MEAN], [s / 255 for s in STD]))
    if chosen.use_horizontal_flip:
        steps.append(v2.RandomHorizontalFlip())
    if chosen.use_vertical_flip:
        steps.append(v2.RandomVerticalFlip())
    if chosen.use_rotation or chosen.use_random_scale:
        angle = chosen.rotation_angle if chosen.use_rotation else 0
        scale = tuple(chosen.random_scale) if chosen.use_random_scale else None
        steps.append(v2.RandomAffine(angle, scale=scale, interpolation=InterpolationMode.BILINEAR, fill=0))
    out, out_mask = v2.Compose(steps)(*pair)
    height, width = out.shape[-2:]
    padding = [0, 0, chosen.img_size - width, chosen.img_size - height]
    return torch.Tensor(v2.functional.pad(out, padding)), torch.Tensor(v2.functional.pad(out_mask, padding)[0])


def assert_as_plain(chosen, image, mask, seeds):
    transform = Data_Transform(chosen, train=True)
    loaded, positions = transform.load(image, mask)
    for seed in seeds:
        torch.manual_seed(seed)
        expected = plain(chosen, loaded, positions)
        state = torch.get_rng_state()
        torch.manual_seed(seed)
        out, out_mask, _ = transform.finish(loaded, positions)
        assert torch.equal(out, expected[0])
        assert torch.equal(out_mask, expected[1])
        assert torch.equal(torch.get_rng_state(), state)  # the same numbers drawn, no more, no fewer


def random_pair(shape, dtype=np.uint8):
    rng = np.random.default_rng(0)
    return rng.integers(0, np.iinfo(dtype).max, (*shape, 3), dtype), rng.integers(0, 4, shape, np.uint8)


@pytest.mark.parametrize("switches", list(product([False, True], repeat=len(SWITCHES))))
def test_every_choice_of_settings(switches):
    chosen = settings(**dict(zip(SWITCHES, switches, strict=True)))
    assert_as_plain(chosen, *random_pair((40, 33)), seeds=range(2))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(48, 48), (90, 31), (31, 90), (1, 1), (1, 700), (700, 3), (47, 48)])
def test_everything_at_once_at_any_shape(shape, dtype):
    assert_as_plain(settings(**dict.fromkeys(SWITCHES, True)), *random_pair(shape, dtype), seeds=range(6))


def test_the_settings_of_drive_at_its_size():
    names = ["use_brightness", "use_horizontal_flip", "use_vertical_flip", "use_rotation"]
    chosen = settings(512, rotation_angle=10.0, brightness=0.2, **dict.fromkeys(names, True))
    assert_as_plain(chosen, *random_pair((584, 565)), seeds=range(4))


@pytest.mark.parametrize(
    ("angle", "scale"), [(0.0, 1.0), (90.0, 1.0), (-180.0, 1.0), (13.7, 0.5), (-45.0, 2.0), (3, 9)]
)
@pytest.mark.parametrize("shape", [(32, 32), (33, 20), (5, 64), (1, 9)])
def test_rotation_and_scale_are_torchvision_s(angle, scale, shape):
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.standard_normal((3, *shape)).astype(np.float32))
    mask = torch.from_numpy(rng.integers(0, 256, shape, np.uint8))
    before = image.clone(), mask.clone()
    moved, moved_mask = rotate_and_scale(image, mask, angle, scale)
    how = {"angle": angle, "translate": [0, 0], "scale": scale, "shear": [0.0, 0.0], "fill": 0}
    expected = v2.functional.affine(image, interpolation=InterpolationMode.BILINEAR, **how)
    assert torch.equal(moved, expected)
    assert torch.equal(moved_mask, v2.functional.affine(tv_tensors.Mask(mask), **how).as_subclass(torch.Tensor))
    assert torch.equal(image, before[0])
    assert torch.equal(mask, before[1])


@pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, 1), (np.uint8, 3), (np.uint16, 1), (np.uint16, 3)])
def test_integers_finish_as_the_floats_that_they_mean(dtype, channels):
    chosen = settings(**dict.fromkeys(SWITCHES, True))
    levels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (channels, 60, 50), dtype, endpoint=True)
    mask = np.ones((60, 50), np.uint8)
    floats = np.broadcast_to(levels, (3, 60, 50)).astype(np.float32) / np.float32(np.iinfo(dtype).max)
    transform = Data_Transform(chosen, train=True)
    results = []
    for image in (levels, np.ascontiguousarray(floats)):
        before = image.copy()
        torch.manual_seed(3)
        results.append(transform.finish(image, mask)[0])
        np.testing.assert_array_equal(image, before)  # what is kept in memory must stay as it is
    assert torch.equal(*results)
