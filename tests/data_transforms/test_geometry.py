"""Odd shapes, padding and several labels, under every augmentation at once and with SAM's normalization."""

import numpy as np
import pytest
import torch
from transform_settings import EVERYTHING, transform_settings

from data_transforms.data_transforms import Data_Transform, resize_shape, to_native
from utils.config.schema import DataTransformsConfig

SIZE = 32


def settings(**changes) -> DataTransformsConfig:
    ranges = {"rotation_angle": 180.0, "saturation": 0.5, "brightness": 0.5, "random_scale": [0.5, 2.0]}
    return transform_settings(**({"img_size": SIZE} | ranges | changes))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(1, 1), (1, 900), (700, 3), (31, 33), (33, 17), (64, 64), (584, 565)])
def test_padding_is_zero_and_nothing_fails_at_any_shape(size, dtype):
    transform = Data_Transform(settings(**EVERYTHING), train=True)
    white = np.full((*size, 3), np.iinfo(dtype).max, dtype)
    torch.manual_seed(0)
    for _ in range(5):
        image, mask, (height, width) = transform(white, np.ones(size, np.uint8))
        assert (image.shape, image.dtype) == ((3, SIZE, SIZE), torch.float32)
        assert (mask.shape, mask.dtype) == ((SIZE, SIZE), torch.uint8)
        assert 1 <= height <= SIZE
        assert 1 <= width <= SIZE
        for outside in (image[:, height:], image[:, :, width:], mask[height:], mask[:, width:]):
            assert not outside.any()
        assert image.isfinite().all()


def test_the_crop_is_of_one_scale_and_keeps_the_short_side():
    transform = Data_Transform(settings(use_random_crop=True), train=True)
    _, _, valid = transform(np.zeros((100, 50, 3), np.uint8))
    assert transform.load_shape((100, 50)) == (40, 20)
    assert valid == (32, 20)  # 100 x 50 -> 40 x 20, of which 32 x 20
    assert Data_Transform(settings(use_random_crop=True), train=False)(np.zeros((100, 50, 3), np.uint8))[2] == (32, 16)


def test_rotation_fills_with_the_mean_colour():
    transform = Data_Transform(settings(use_rotation=True, rotation_angle=45.0), train=True)
    white = np.full((SIZE, SIZE, 3), 255, np.uint8)
    torch.manual_seed(0)
    inside = (255 - torch.tensor(settings().pixel_mean)) / torch.tensor(settings().pixel_std)
    corners = 0
    for _ in range(10):
        image, mask, _ = transform(white, np.ones((SIZE, SIZE), np.uint8))
        # Black would be far below zero after normalization, and so would what is blended with it.
        assert image.min() >= -1e-5
        torch.testing.assert_close(image[:, SIZE // 2, SIZE // 2], inside)
        unknown = int((mask == 0).sum())
        assert abs(int((image[0] < inside[0] / 4).sum()) - unknown) <= 0.1 * unknown + 2
        corners = max(corners, unknown)
    assert 50 < corners < 300


def test_scaling_stays_within_its_range_and_uses_it():
    transform = Data_Transform(settings(use_random_scale=True), train=True)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[12:20, 12:20] = 1
    torch.manual_seed(0)
    sides = [float(transform(np.zeros((SIZE, SIZE, 3), np.uint8), mask)[1].sum()) ** 0.5 / 8 for _ in range(60)]
    assert 0.45 <= min(sides) < 0.7
    assert 1.7 < max(sides) <= 2.1


def test_several_labels_move_with_the_image_and_keep_their_values():
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    for label, corner in ((1, 6), (2, 14), (250, 22)):
        mask[corner : corner + 6, 12:18] = label
        image[corner : corner + 6, 12:18] = label
    intensities = ("use_saturation", "use_brightness", "use_contrast", "use_gamma", "use_blur")
    changes = EVERYTHING | dict.fromkeys(intensities, False) | {"random_scale": [0.9, 1.3], "elastic": 30.0}
    plain = {"pixel_mean": [0.0] * 3, "pixel_std": [1.0] * 3}
    transform = Data_Transform(settings(**changes, **plain), train=True)
    torch.manual_seed(0)
    for _ in range(10):
        out, out_mask, _ = transform(image, mask)
        assert set(out_mask.unique().tolist()) <= {0, 1, 2, 250}
        bright = out[0] > 125  # the square of label 250
        either = (bright | (out_mask == 250)).sum()
        assert either == 0 or (bright & (out_mask == 250)).sum() / either > 0.7


@pytest.mark.parametrize(("use", "low", "high"), [("use_brightness", 0.5, 1.5), ("use_saturation", 1.0, 1.0)])
def test_jitter_stays_within_its_range(use, low, high):
    plain = {"pixel_mean": [0.0] * 3, "pixel_std": [255.0] * 3}
    transform = Data_Transform(settings(**{use: True}, **plain), train=True)
    torch.manual_seed(0)
    grey = np.full((4, 4, 3), 120, np.uint8)  # grey has no saturation to change
    ratios = [float(transform(grey)[0][0, 0, 0]) / (120 / 255) for _ in range(50)]
    assert min(ratios) == pytest.approx(low, abs=0.06)
    assert max(ratios) == pytest.approx(high, abs=0.06)


@pytest.mark.parametrize("size", [(90, 50), (50, 90), (64, 64), (3, 200)])
def test_a_mask_survives_the_way_to_the_square_and_back(size):
    """A mask of big blocks, brought to the square and back, is the same but for rounding at the edges."""
    mask = np.zeros(size, np.uint8)
    mask[: size[0] // 2, size[1] // 3 :] = 1
    _, out, valid = Data_Transform(settings(), train=False)(np.zeros((*size, 3), np.uint8), mask)
    assert valid == resize_shape(size, SIZE)
    logits = torch.where(out > 0, 5.0, -5.0)
    logits[valid[0] :] = logits[:, valid[1] :] = 99.0  # padding must not leak in
    native = to_native(logits, valid, size)
    assert native.shape == size
    wrong = (native > 0).numpy() != (mask == 1)
    seam = max(size) / SIZE
    rows, columns = np.nonzero(wrong)
    far = (np.abs(rows - size[0] // 2) > seam) & (np.abs(columns - size[1] // 3) > seam)
    assert not far.any()
    assert native.max() <= 5
