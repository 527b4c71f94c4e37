"""The loss against its formulas, written out in float64 numpy."""

from typing import get_args

import numpy as np
import pytest
import torch
from monai.losses import DiceLoss, LogHausdorffDTLoss, SoftclDiceLoss, TverskyLoss
from scipy import ndimage

from utils.config.options import LossPart
from utils.losses import SegmentationLoss


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def direct_focal(logits, masks, alpha=0.75, gamma=3.0):
    p = sigmoid(logits)
    foreground = -alpha * (1.0 - p) ** gamma * np.log(p)
    background = -(1.0 - alpha) * p**gamma * np.log(1.0 - p)
    return np.where(masks == 1, foreground, background).mean()


def direct_dice(logits, masks):
    p = sigmoid(logits)
    images = [
        1.0 - (2.0 * (a * t).sum() + 1.0) / (a.sum() + t.sum() + 1.0) for a, t in zip(p, masks, strict=True)
    ]  # one value an image: images count alike, however large their vessels are
    return float(np.mean(images))


def direct_bce(logits, masks):
    p = sigmoid(logits)
    return -np.where(masks == 1, np.log(p), np.log(1.0 - p)).mean()


def tverskies(logits, masks, alpha=0.3):
    p = sigmoid(logits)
    for a, t in zip(p, masks, strict=True):
        hits, false_alarms, misses = (a * t).sum(), (a * (1 - t)).sum(), ((1 - a) * t).sum()
        yield 1.0 - (hits + 1.0) / (hits + alpha * false_alarms + (1 - alpha) * misses + 1.0)


def direct_tversky(logits, masks, alpha=0.3):
    return float(np.mean(list(tverskies(logits, masks, alpha))))


def direct_focal_tversky(logits, masks):
    return float(np.mean([loss**0.75 for loss in tverskies(logits, masks)]))


def soft_skeleton(image, iterations):
    """Algorithm 1 of arXiv 2003.07311 by scipy's filters; its erosion takes a cross, its dilation a square."""
    cross = ndimage.generate_binary_structure(2, 1)

    def opened_away(image):
        eroded = ndimage.grey_erosion(image, footprint=cross, mode="constant", cval=np.inf)
        opened = ndimage.grey_dilation(eroded, size=(3, 3), mode="constant", cval=-np.inf)
        return np.maximum(image - opened, 0.0)

    skeleton = opened_away(image)
    for _ in range(iterations):
        image = ndimage.grey_erosion(image, footprint=cross, mode="constant", cval=np.inf)
        found = opened_away(image)
        skeleton = skeleton + np.maximum(found - skeleton * found, 0.0)
    return skeleton


def direct_cldice(logits, masks, iterations=10):
    values = []
    for p, t in zip(sigmoid(logits), masks, strict=True):
        of_p, of_t = soft_skeleton(p, iterations), soft_skeleton(t, iterations)
        precision, sensitivity = ((of_p * t).sum() + 1) / (of_p.sum() + 1), ((of_t * p).sum() + 1) / (of_t.sum() + 1)
        values.append(1.0 - 2.0 * precision * sensitivity / (precision + sensitivity + 1e-4))
    return float(np.mean(values))


def direct_boundary(logits, masks):
    def distance(mask):
        if mask.all() or not mask.any():
            return np.zeros(mask.shape)
        return ndimage.distance_transform_edt(mask) + ndimage.distance_transform_edt(~mask)

    p = sigmoid(logits)
    images = [
        ((a - t) ** 2 * (distance(a > 0.5) ** 2 + distance(t > 0.5) ** 2)).mean() for a, t in zip(p, masks, strict=True)
    ]
    return float(np.log(np.mean(images) + 1.0))


DIRECT = {
    "focal": direct_focal,
    "dice": direct_dice,
    "bce": direct_bce,
    "cldice": direct_cldice,
    "tversky": direct_tversky,
    "focal_tversky": direct_focal_tversky,
    "boundary": direct_boundary,
}
ALL = "+".join(DIRECT)


def test_every_part_has_its_formula_here():
    assert set(DIRECT) == set(get_args(LossPart))


@pytest.fixture
def pair():
    """Float64 logits (3, 8, 8) and masks whose foreground differs a lot in size, one of them empty."""
    rng = np.random.default_rng(0)
    masks = np.zeros((3, 8, 8))
    masks[0, 2:4, 1:7] = 1
    masks[1, :, :6] = 1
    return rng.normal(0.0, 2.0, (3, 8, 8)), masks


def tensors(pair):
    return torch.tensor(pair[0], dtype=torch.float32), torch.tensor(pair[1], dtype=torch.float32)


@pytest.mark.parametrize("name", list(DIRECT))
def test_each_part_follows_its_formula(pair, name):
    value = SegmentationLoss(name)(*tensors(pair))
    assert value.dtype == torch.float32
    assert value.shape == ()
    assert value.item() == pytest.approx(DIRECT[name](*pair), rel=1e-5)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.75, 3.0), (0.25, 2.0), (1.0, 1.0), (0.0, 0.0), (0.5, 1.5)])
def test_focal_weights_foreground_by_alpha_and_easy_pixels_by_gamma(pair, alpha, gamma):
    value = SegmentationLoss("focal", focal_alpha=alpha, focal_gamma=gamma)(*tensors(pair))
    assert value.item() == pytest.approx(direct_focal(*pair, alpha, gamma), rel=1e-5)


def test_focal_on_probabilities_is_the_released_double_sigmoid(pair):
    logits, masks = pair
    loss = SegmentationLoss("focal+dice+bce", focal_on="probabilities")
    parts = loss.parts(*tensors(pair))
    assert parts["focal"].item() == pytest.approx(direct_focal(sigmoid(logits), masks), rel=1e-5)
    # Only focal: the other parts stay on the logits.
    assert parts["dice"].item() == pytest.approx(direct_dice(logits, masks), rel=1e-5)
    assert parts["bce"].item() == pytest.approx(direct_bce(logits, masks), rel=1e-5)


def test_released_focal_never_goes_below_its_floor():
    """sigmoid(sigmoid(x)) stays in [0.5, 0.731]: a perfect prediction still pays."""
    masks = torch.zeros(1, 4, 4)
    perfect = torch.full((1, 4, 4), -50.0)
    assert SegmentationLoss("focal", focal_on="probabilities")(perfect, masks).item() == pytest.approx(
        0.25 * 0.5**3 * np.log(2.0), rel=1e-5
    )
    assert SegmentationLoss("focal")(perfect, masks).item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("names", ["focal+dice", "dice+bce", "focal+dice+bce", " bce + focal "])
def test_total_is_the_plain_sum(pair, names):
    loss = SegmentationLoss(names)
    parts = loss.parts(*tensors(pair))
    chosen = [name.strip() for name in names.split("+")]
    assert list(parts) == [*chosen, "total"]
    assert parts["total"].item() == pytest.approx(sum(DIRECT[name](*pair) for name in chosen), rel=1e-5)
    assert loss(*tensors(pair)).item() == parts["total"].item()


def test_the_default_is_the_papers_focal_and_dice(pair):
    assert SegmentationLoss()(*tensors(pair)).item() == pytest.approx(
        direct_focal(*pair, 0.75, 3.0) + direct_dice(*pair), rel=1e-5
    )


@pytest.mark.parametrize("seed", range(5))
def test_dice_and_its_gradient_are_monai_s(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 40, 50, generator=generator) * 4
    masks = (torch.rand(3, 40, 50, generator=generator) < seed / 4).float()
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    value = SegmentationLoss("dice")(ours, masks)
    expected = DiceLoss(sigmoid=True, smooth_nr=1.0, smooth_dr=1.0)(theirs[:, None], masks[:, None])
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-7)
    value.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_values_and_gradients_are_monai_s(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 40, 50, generator=generator) * 4
    masks = (torch.rand(2, 40, 50, generator=generator) < 0.2).float()
    smooth = {"sigmoid": True, "smooth_nr": 1.0, "smooth_dr": 1.0}
    theirs = {
        "cldice": SoftclDiceLoss(iter_=4, **smooth),
        "tversky": TverskyLoss(alpha=0.2, beta=0.8, **smooth),
        "boundary": LogHausdorffDTLoss(sigmoid=True, include_background=True),
    }
    for name, expected in theirs.items():
        one, other = logits.clone().requires_grad_(), logits.clone().requires_grad_()
        value = SegmentationLoss(name, cldice_iterations=4, tversky_alpha=0.2)(one, masks)
        theirs = expected(other[:, None], masks[:, None])
        torch.testing.assert_close(value, theirs, rtol=1e-6, atol=1e-7)
        value.backward()
        theirs.backward()
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-10)


@pytest.mark.parametrize("name", ["cldice", "tversky", "focal_tversky", "boundary"])
def test_gradients_are_those_of_the_formula(name):
    """Central differences of the float64 formulas, at pixels whose probability is far from 1/2 and from ties."""
    rng = np.random.default_rng(1)
    masks = np.zeros((1, 9, 9))
    masks[0, 3:6, 1:8] = 1
    logits = rng.normal(0, 1, (1, 9, 9)) + 3 * (2 * masks - 1)
    tensor = torch.tensor(logits, dtype=torch.float32, requires_grad=True)
    SegmentationLoss(name)(tensor, torch.tensor(masks)).backward()
    for pixel in [(0, 4, 4), (0, 3, 2), (0, 0, 0), (0, 7, 5)]:
        step = np.zeros_like(logits)
        step[pixel] = 1e-5
        slope = (DIRECT[name](logits + step, masks) - DIRECT[name](logits - step, masks)) / 2e-5
        assert tensor.grad[pixel].item() == pytest.approx(slope, rel=2e-3, abs=1e-7)


def test_weights_weigh_the_total_alone(pair):
    loss = SegmentationLoss("focal:2+dice+cldice : 0.5")
    parts = loss.parts(*tensors(pair))
    assert list(parts) == ["focal", "dice", "cldice", "total"]
    for name in ("focal", "dice", "cldice"):
        assert parts[name].item() == pytest.approx(DIRECT[name](*pair), rel=1e-5)
    expected = 2 * parts["focal"] + parts["dice"] + 0.5 * parts["cldice"]
    assert parts["total"].item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("loss", ["focal:0", "focal:-1", "dice:x", "dice:", "dice:nan", "dice:inf", "dice:1:2"])
def test_weights_that_are_none_are_refused(loss):
    with pytest.raises(ValueError, match=r"as the weight of (focal|dice); it must be a number above 0"):
        SegmentationLoss(loss)


def test_every_part_carries_its_own_gradient(pair):
    for name in ("focal", "dice", "bce", "tversky", "focal_tversky"):
        logits, masks = tensors(pair)
        logits.requires_grad_(True)
        SegmentationLoss(ALL).parts(logits, masks)[name].backward()
        # Every part falls when any foreground logit rises, and rises with any background logit.
        assert (logits.grad[masks == 1] < 0).all()
        assert (logits.grad[masks == 0] > 0).all()


@pytest.mark.parametrize("focal_on", ["logits", "probabilities"])
@pytest.mark.parametrize("gamma", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("mask", [0.0, 1.0])
@pytest.mark.parametrize("logit", [-50.0, 50.0])
def test_saturated_logits_on_empty_and_full_masks_stay_finite(logit, mask, gamma, focal_on):
    logits = torch.full((2, 4, 4), logit, requires_grad=True)
    loss = SegmentationLoss(ALL, focal_gamma=gamma, focal_on=focal_on)(logits, torch.full((2, 4, 4), mask))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_a_saturated_mistake_still_has_a_gradient():
    logits = torch.full((1, 4, 4), -50.0, requires_grad=True)
    SegmentationLoss("focal")(logits, torch.ones(1, 4, 4)).backward()
    np.testing.assert_allclose(logits.grad.numpy(), -0.75 / 16, rtol=1e-5)


def test_an_empty_prediction_of_an_empty_mask_costs_no_dice():
    loss = SegmentationLoss("dice")
    assert loss(torch.full((1, 4, 4), -50.0), torch.zeros(1, 4, 4)).item() == pytest.approx(0.0, abs=1e-6)
    assert loss(torch.full((1, 4, 4), 50.0), torch.zeros(1, 4, 4)).item() == pytest.approx(1.0 - 1.0 / 17.0, rel=1e-5)


def test_a_batch_is_the_mean_of_its_images(pair):
    logits, masks = tensors(pair)
    loss = SegmentationLoss("focal+dice+bce")
    alone = [loss(logits[i : i + 1], masks[i : i + 1]).item() for i in range(len(logits))]
    assert loss(logits, masks).item() == pytest.approx(np.mean(alone), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_are_computed_in_float32(pair, dtype):
    logits, masks = tensors(pair)
    loss = SegmentationLoss(ALL)
    low = logits.to(dtype)
    for name, value in loss.parts(low, masks.to(dtype)).items():
        assert value.dtype == torch.float32
        assert torch.equal(value, loss.parts(low.float(), masks)[name])


def test_autocast_changes_nothing(pair):
    logits, masks = tensors(pair)
    loss = SegmentationLoss(ALL)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(logits.bfloat16(), masks)
    assert torch.equal(inside, loss(logits.bfloat16().float(), masks))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64])
def test_masks_may_be_of_any_dtype(pair, dtype):
    logits, masks = tensors(pair)
    loss = SegmentationLoss("focal+dice+bce")
    assert torch.equal(loss(logits, masks.to(dtype)), loss(logits, masks))


@pytest.mark.parametrize("loss", ["focal+dise", "", "focal+", "Dice", "dice+dice", "parts"])
def test_unknown_and_repeated_parts_are_refused(loss):
    with pytest.raises(ValueError, match="must join some of focal, dice, bce"):
        SegmentationLoss(loss)


@pytest.mark.parametrize("shape", [(2, 8, 8), (3, 8), (3, 1, 8, 8), (3, 8, 7)])
def test_masks_of_another_shape_are_refused(pair, shape):
    logits, _ = tensors(pair)
    with pytest.raises(ValueError, match="expected logits and masks"):
        SegmentationLoss()(logits, torch.zeros(shape))


def test_a_channel_axis_is_refused(pair):
    logits, masks = tensors(pair)
    with pytest.raises(ValueError, match="expected logits and masks"):
        SegmentationLoss()(logits[:, None], masks[:, None])
