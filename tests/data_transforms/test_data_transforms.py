"""Image and mask stay together under every transform; shapes, intensity and padding are exact."""

import numpy as np
import pytest
import torch
from transform_settings import EVERYTHING, transform_settings

from data_transforms.data_transforms import Data_Transform, resize_shape, to_native
from utils.config.schema import DataTransformsConfig
from utils.errors import ConfigError

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


def settings(**changes) -> DataTransformsConfig:
    """At 64 pixels with strong augmentation, and 0..1 where a real config normalizes."""
    ranges = {"rotation_angle": 40.0, "saturation": 0.5, "brightness": 0.5, "random_scale": [0.5, 1.5], "elastic": 60.0}
    unit = {"pixel_mean": [0.0] * 3, "pixel_std": [255.0] * 3}
    return transform_settings(**({"img_size": 64} | ranges | unit | changes))


def marked(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A dark image with one bright square off every axis of symmetry, and the square as mask."""
    mask = np.zeros((height, width), np.uint8)
    mask[height // 5 : height // 5 + 9, width // 4 : width // 4 + 9] = 1
    return np.repeat(mask[..., None] * 255, 3, -1), mask


def centre(values: torch.Tensor) -> torch.Tensor:
    """Centre of mass (y, x)."""
    y, x = torch.meshgrid(*(torch.arange(float(n)) for n in values.shape), indexing="ij")
    return torch.stack([(values * y).sum(), (values * x).sum()]) / values.sum()


MOVES = [
    "use_rotation", "use_horizontal_flip", "use_vertical_flip", "use_random_scale", "use_random_crop", "use_elastic",
]  # fmt: skip


@pytest.mark.parametrize("switches", [*([s] for s in MOVES), MOVES])
def test_image_and_mask_move_together(switches):
    transform = Data_Transform(settings(**dict.fromkeys(switches, True)), train=True)
    image, mask = marked(64, 56)
    places = set()
    torch.manual_seed(0)
    for _ in range(12):
        out, out_mask, (height, width) = transform(image, mask)
        assert (out.shape, out_mask.shape) == ((3, 64, 64), (64, 64))
        assert not out[:, height:].any()
        assert not out[:, :, width:].any()
        if out_mask.sum() < 30:  # moved out of the picture
            continue
        bright = out[0] > 0.5
        overlap = (bright & (out_mask == 1)).sum() / (bright | (out_mask == 1)).sum()
        assert overlap > 0.8
        assert (centre(out[0]) - centre(out_mask.float())).abs().max() < 0.6
        places.add((*centre(out_mask.float()).round().tolist(), int(out_mask.sum())))
    assert len(places) > 1  # something did move


def test_one_pixel_under_flips_is_exact():
    image, mask = np.zeros((64, 48, 3), np.uint8), np.zeros((64, 48), np.uint8)
    image[3, 7], mask[3, 7] = 255, 1
    transform = Data_Transform(settings(use_horizontal_flip=True, use_vertical_flip=True), train=True)
    torch.manual_seed(0)
    seen = set()
    for _ in range(30):
        out, out_mask, _ = transform(image, mask)
        assert torch.equal(out[0], out_mask.float())
        seen.add(tuple(out_mask.nonzero()[0].tolist()))
    # The un-padded part is flipped, so padding stays right and bottom.
    assert seen == {(3, 7), (60, 7), (3, 40), (60, 40)}


def test_rotation_goes_both_ways_and_no_farther_than_asked():
    transform = Data_Transform(settings(use_rotation=True, rotation_angle=10.0), train=True)
    image, mask = marked(64, 64)
    middle = torch.tensor([31.5, 31.5])
    start = centre(torch.from_numpy(mask).float()) - middle
    torch.manual_seed(0)
    angles = []
    for _ in range(60):
        turned = centre(transform(image, mask)[0][0]) - middle
        angle = torch.atan2(start[1] * turned[0] - start[0] * turned[1], start @ turned)
        angles.append(float(torch.rad2deg(angle)))
    assert -10.5 < min(angles) < -5
    assert 5 < max(angles) < 10.5


def test_jitter_changes_the_image_alone_and_stays_in_range():
    transform = Data_Transform(settings(use_brightness=True, use_saturation=True), train=True)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    mask = np.eye(64, dtype=np.uint8)
    torch.manual_seed(0)
    one, two = transform(image, mask), transform(image, mask)
    assert not torch.equal(one[0], two[0])
    assert torch.equal(one[1], torch.from_numpy(mask))
    assert one[0].min() >= 0
    assert one[0].max() <= 1


def test_evaluation_is_deterministic():
    image, mask = marked(50, 64)
    plain = Data_Transform(settings(), train=False)(image, mask)
    used = Data_Transform(settings(**EVERYTHING), train=False)(image, mask)
    assert torch.equal(plain[0], used[0])
    assert torch.equal(plain[1], used[1])


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((584, 565), (64, 62)),
        ((565, 584), (62, 64)),
        ((64, 64), (64, 64)),
        ((5, 3), (64, 38)),
        ((1000, 2), (64, 1)),
        ((3, 5000), (1, 64)),
        ((1, 1), (64, 64)),
    ],
)
def test_shapes_and_padding_that_is_zero_after_normalization(size, expected):
    assert resize_shape(size, 64) == expected
    image = np.full((*size, 3), 200, np.uint8)
    transform = Data_Transform(settings(pixel_mean=MEAN, pixel_std=STD), train=False)
    out, mask, valid = transform(image, np.ones(size, np.uint8))
    assert (tuple(out.shape), tuple(mask.shape), valid) == ((3, 64, 64), (64, 64), expected)
    height, width = valid
    inside = (200 - torch.tensor(MEAN)) / torch.tensor(STD)
    torch.testing.assert_close(out[:, :height, :width], inside[:, None, None].expand(3, height, width))
    assert (mask[:height, :width] == 1).all()
    assert out.count_nonzero() == 3 * height * width
    assert mask.count_nonzero() == height * width


def test_rotation_fills_with_zero_after_normalization():
    transform = Data_Transform(settings(use_rotation=True, pixel_mean=MEAN, pixel_std=STD), train=True)
    torch.manual_seed(3)
    out, mask, _ = transform(np.full((64, 64, 3), 255, np.uint8), np.ones((64, 64), np.uint8))
    corner_pixels = out[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corner_pixels == 0).any()
    assert (out[:, mask == 0].abs() < out.max()).all()


@pytest.mark.parametrize(
    ("window", "dtype", "values", "expected"),
    [
        ((None, None), np.uint8, [0, 51, 255], [0, 0.2, 1]),
        ((None, None), np.uint16, [0, 13107, 65535], [0, 0.2, 1]),
        ((0.0, 255.0), np.uint8, [0, 51, 255], [0, 0.2, 1]),
        ((50.0, 150.0), np.uint8, [0, 75, 200], [0, 0.25, 1]),
        ((1000.0, 3000.0), np.uint16, [0, 1500, 60000], [0, 0.25, 1]),
        ((55.0, None), np.uint8, [5, 105, 255], [0, 0.25, 1]),
    ],
)
def test_intensity_window(window, dtype, values, expected):
    transform = Data_Transform(settings(a_min=window[0], a_max=window[1]), train=False)
    image = np.broadcast_to(np.array(values, dtype)[:, None, None], (3, 3, 3))
    np.testing.assert_allclose(transform.intensity(image)[:, 0, 0], expected, rtol=1e-6)


def test_a_window_without_width_is_refused():
    with pytest.raises(ConfigError, match=r"a_max \(255\) must be above a_min \(1000\.0\)"):
        Data_Transform(settings(a_min=1000.0), train=False)(np.zeros((4, 4, 3), np.uint8))


@pytest.mark.parametrize(
    ("dtype", "a_max", "share_above", "refused"),
    [
        (np.uint16, 255.0, 0.51, True),
        (np.uint16, 255.0, 0.5, False),  # a window on the dark half may be meant
        (np.uint16, 1.0, 0.9, True),
        (np.uint16, 256.0, 0.9, False),  # a window of 16-bit values
        (np.uint16, None, 0.9, False),
        (np.uint8, 100.0, 0.9, False),
    ],
)
def test_a_window_of_eight_bits_on_an_image_of_sixteen(dtype, a_max, share_above, refused):
    image = np.zeros((10, 10, 3), dtype)
    image.reshape(-1)[: round(300 * share_above)] = 250 if dtype == np.uint8 else 40_000
    transform = Data_Transform(settings(a_max=a_max), train=False)
    if not refused:
        transform(image)
        assert transform.intensity(image).max() == (1 if a_max else np.float32(40_000 / 65535))
        return
    assert transform.intensity(image).max() == 1, "a part of an image may be white"
    with pytest.raises(
        ConfigError, match=rf"a_max \({a_max:g}\) would turn {share_above:.0%} of this 16-bit image white"
    ):
        transform(image)


def test_downsizing_is_antialiased_and_the_mask_is_of_its_nearest_values():
    stripes = np.tile(np.array([[0, 0, 0, 255]], np.uint8), (256, 64))  # without antialiasing: nothing but zeros
    out, mask, _ = Data_Transform(settings(), train=False)(np.repeat(stripes[..., None], 3, -1), stripes // 255)
    assert (out[0, :, 4:-4] - 0.25).abs().max() < 0.05
    assert not mask.any()
    # Output pixel i has its centre at 4 i + 2 of the input, the corner of pixel 4 i + 2: that is its nearest.
    third = np.tile(np.array([[0, 0, 1, 0]], np.uint8), (256, 64))
    assert Data_Transform(settings(), train=False)(np.zeros((256, 256, 3), np.uint8), third)[1].all()


def test_logits_come_back_to_the_image_s_own_size():
    size, valid = (584, 301), resize_shape((584, 301), 64)
    y = torch.arange(584.0)[:, None].expand(size)
    ramp = torch.nn.functional.interpolate(y[None, None], valid, mode="bilinear", align_corners=False)[0, 0]
    logits = torch.full((64, 64), 1e6)  # what the padding says must not leak in
    logits[: valid[0], : valid[1]] = ramp
    native = to_native(logits, valid, size)
    assert native.shape == size
    assert (native - y)[10:-10].abs().max() < 0.01
    tensors = tuple(torch.tensor(side) for side in valid), tuple(torch.tensor(side) for side in size)
    assert torch.equal(to_native(logits, *tensors), native)  # as a collated batch holds them


def test_random_crop_sees_all_of_the_image():
    transform = Data_Transform(settings(use_random_crop=True), train=True)
    assert transform.load_shape((80, 80)) == (80, 80)
    gradient = np.broadcast_to(np.arange(80, dtype=np.uint8)[:, None, None], (80, 80, 3))
    torch.manual_seed(0)
    tops = {round(float(transform(gradient)[0][0, 0, 0]) * 255) for _ in range(200)}
    assert tops == set(range(17))


@pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, 1), (np.uint8, 3), (np.uint16, 1), (np.uint16, 3)])
def test_integer_images_give_the_same_bits_as_float_images(dtype, channels):
    levels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (channels, 60, 50), dtype, endpoint=True)
    mask = np.ones((60, 50), np.uint8)
    floats = np.broadcast_to(levels, (3, 60, 50)).astype(np.float32) / np.float32(np.iinfo(dtype).max)
    transform = Data_Transform(settings(**EVERYTHING), train=True)
    results = []
    for image in (levels, np.ascontiguousarray(floats)):
        before = image.copy()
        torch.manual_seed(3)
        results.append(transform.finish(image, mask)[0])
        np.testing.assert_array_equal(image, before)  # what is kept in memory must stay as it is
    assert torch.equal(*results)


@pytest.mark.parametrize("key", ["brightness", "saturation", "contrast", "gamma", "blur"])
def test_changes_of_intensities_leave_the_mask(key):
    rng = np.random.default_rng(0)
    image, mask = rng.integers(60, 190, (64, 48, 3), dtype=np.uint8), rng.integers(0, 2, (64, 48), dtype=np.uint8)
    plain, plain_mask, _ = Data_Transform(settings(), train=True)(image, mask)
    transform = Data_Transform(settings(**{f"use_{key}": True}), train=True)
    torch.manual_seed(0)
    changed = set()
    for _ in range(8):
        out, out_mask, _ = transform(image, mask)
        assert torch.equal(out_mask, plain_mask)
        assert not out[:, :, 48:].any()
        changed.add(float((out - plain).abs().max()))
    assert len(changed) > 2


def test_gamma_is_the_exponent_of_the_intensities():
    image = np.full((64, 64, 3), 51, np.uint8)  # 0.2
    transform = Data_Transform(settings(use_gamma=True, gamma=[0.5, 2.0]), train=True)
    torch.manual_seed(0)
    exponents = []
    for _ in range(50):
        out = transform(image)[0]
        assert out.amax() == out.amin()
        exponents.append(float(torch.log(out[0, 0, 0]) / np.log(0.2)))
    assert 0.5 <= min(exponents) < 0.7
    assert 1.6 < max(exponents) <= 2.0
    assert 0.8 < np.median(exponents) < 1.25
