"""Every metric against an independent implementation, on random and real masks, and at empty, full and dotted ones."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from PIL import Image
from scipy import ndimage
from scipy.spatial.distance import cdist
from skimage.morphology import skeletonize
from sklearn import metrics as sklearn_metrics
from torch import from_numpy

from evaluation.metrics import score_pair
from evaluation.names import METRICS
from utils.config.options import MetricName

NAMES = get_args(MetricName)
# The real set may lie beside the repository; it is never part of it.
REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "DRIVE" / "test"


def curves(seed, shape=(60, 80)):
    """Probabilities (H, W) float32 of smooth curves and a truth that they resemble."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.standard_normal(shape), 3)
    truth = np.abs(field) < 0.25 * field.std()
    logits = ndimage.gaussian_filter(8.0 * truth - 4, 0.7) + rng.normal(0, 2, shape)
    return (1 / (1 + np.exp(-logits))).astype(np.float32), truth


def real(number):
    """The second observer's vessels, blurred, as probabilities; the first's as truth; the field of view."""
    if not REAL.is_dir():
        pytest.skip("the real DRIVE isn't here")
    read = [
        np.asarray(Image.open(REAL / part / f"{number:02d}_{name}.gif")) > 0
        for part, name in (("2nd_manual", "manual2"), ("1st_manual", "manual1"), ("mask", "test_mask"))
    ]
    noise = np.random.default_rng(number).random(read[0].shape)
    return (0.9 * ndimage.gaussian_filter(read[0] * 1.0, 1) + 0.1 * noise).astype(np.float32), read[1], read[2]


def all_of(probability, truth, fov=None, tolerance=2.0, threshold=0.5):
    score = score_pair(probability > threshold, truth, NAMES, probability, fov, tolerance)
    inside = None if fov is None else {"dice": score.fov.dice, "hd95": score.fov.hd95, **score.fov.others}
    return {"dice": score.dice, "hd95": score.hd95, **score.others}, inside


def by_sklearn(pred, probability, truth):
    pred, probability, truth = pred.ravel(), probability.ravel(), truth.ravel()
    return {
        "dice": sklearn_metrics.f1_score(truth, pred),
        "iou": sklearn_metrics.jaccard_score(truth, pred),
        "sensitivity": sklearn_metrics.recall_score(truth, pred),
        "specificity": sklearn_metrics.recall_score(~truth, ~pred),
        "precision": sklearn_metrics.precision_score(truth, pred),
        "accuracy": sklearn_metrics.accuracy_score(truth, pred),
        "mcc": sklearn_metrics.matthews_corrcoef(truth, pred),
        "auc_roc": sklearn_metrics.roc_auc_score(truth, probability),
        "average_precision": sklearn_metrics.average_precision_score(truth, probability),
        "ece": direct_ece(probability, truth),
    }


def direct_ece(probability, truth):
    """Bin by bin, in float64."""
    total = 0.0
    for i in range(15):
        inside = (probability >= i / 15) & ((probability < (i + 1) / 15) | (i == 14))
        if inside.any():
            total += inside.sum() * abs(probability[inside].astype(np.float64).mean() - truth[inside].mean())
    return total / truth.size


def edges(mask):
    """Coordinates of the foreground pixels with a 4-neighbour that is background or outside the image."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.argwhere(mask & ~inner)


def direct_shapes(pred, truth, tolerance):
    """By the definitions, from all pairs of edge pixels in float64; neighbours are found by flooding."""
    distances = cdist(edges(pred), edges(truth))
    there, back = distances.min(axis=1), distances.min(axis=0)
    both = np.concatenate([there, back])
    squares = np.lib.stride_tricks.sliding_window_view(np.pad(truth, 2), (3, 3)).all(axis=(2, 3))  # by their corners
    covered = np.lib.stride_tricks.sliding_window_view(squares, (3, 3)).any(axis=(2, 3))
    thin = truth & ~covered  # in no square of the truth
    precision = np.mean([truth[tuple(point)] for point in np.argwhere(skeletonize(pred))])
    sensitivity = np.mean([pred[tuple(point)] for point in np.argwhere(skeletonize(truth))])
    return {
        "hd95": max(np.percentile(there, 95), np.percentile(back, 95)),
        "assd": both.mean(),
        "nsd": (both <= tolerance).mean(),
        "cldice": 2 * precision * sensitivity / (precision + sensitivity),
        "betti0_error": abs(flooded(pred) - flooded(truth)),
        "thin_sensitivity": pred[thin].mean(),
    }


def flooded(mask):
    """The number of 8-connected pieces."""
    left, pieces = {tuple(point) for point in np.argwhere(mask)}, 0
    while left:
        pieces, waiting = pieces + 1, [left.pop()]
        while waiting:
            y, x = waiting.pop()
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            waiting += near
    return pieces


def test_every_metric_has_a_name_and_is_computed():
    assert list(METRICS) == list(NAMES)
    assert set(all_of(*curves(0))[0]) == set(NAMES)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("levels", [None, 5])
def test_random_masks_agree_with_independent_implementations(seed, levels):
    """With few levels of probability there are many ties."""
    probability, truth = curves(seed, (40 + 7 * seed, 71))
    if levels:
        probability = (np.round(probability * levels) / levels).astype(np.float32)
    tolerance = 1.0 + seed / 2
    found, _ = all_of(probability, truth, tolerance=tolerance)
    expected = by_sklearn(probability > 0.5, probability, truth) | direct_shapes(probability > 0.5, truth, tolerance)
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_average_precision_and_auc_by_counting_pairs_and_thresholds():
    probability = np.array([[0.9, 0.8, 0.8, 0.3], [0.8, 0.3, 0.1, 0.0]], np.float32)
    truth = np.array([[1, 0, 1, 0], [1, 1, 0, 0]], bool)
    found, _ = all_of(probability, truth)
    # 16 pairs: .9 beats 4, each .8 beats 3 and ties 1, .3 beats 2 and ties 1
    assert found["auc_roc"] == pytest.approx((4 + 2 * 3.5 + 2.5) / 16)
    assert found["average_precision"] == pytest.approx((1 + 2 * 3 / 4 + 4 / 6) / 4)


@pytest.mark.parametrize("number", [1, 12])
def test_real_drive_masks_inside_and_outside_the_field_of_view(number):
    probability, truth, fov = real(number)
    whole, inside = all_of(probability, truth, fov)
    pred = probability > 0.5
    expected = by_sklearn(pred, probability, truth) | direct_shapes(pred, truth, 2.0)
    assert whole == pytest.approx(expected, rel=1e-6, abs=1e-6)
    cut = direct_shapes(pred & fov, truth & fov, 2.0)
    assert inside == pytest.approx(by_sklearn(pred[fov], probability[fov], truth[fov]) | cut, rel=1e-6, abs=1e-6)
    assert inside["accuracy"] < whole["accuracy"]  # the black surround is easy
    assert inside["specificity"] < whole["specificity"]


@pytest.mark.parametrize("seed", range(4))
def test_surfaces_are_monai_s(seed):
    probability, truth = curves(seed)
    found, _ = all_of(probability, truth, tolerance=1.5)
    y_pred, y = (from_numpy(mask)[None, None] for mask in (probability > 0.5, truth))
    options = {"include_background": True}
    assert found["hd95"] == compute_hausdorff_distance(y_pred, y, percentile=95, **options).item()
    theirs = compute_average_surface_distance(y_pred, y, symmetric=True, **options).item()
    assert found["assd"] == pytest.approx(theirs, rel=1e-6)
    assert found["nsd"] == pytest.approx(compute_surface_dice(y_pred, y, [1.5], **options).item(), rel=1e-6)


EMPTY, FULL, DOT = np.zeros((6, 8), bool), np.ones((6, 8), bool), np.zeros((6, 8), bool)
DOT[2, 3] = True
FAR = np.zeros((6, 8), bool)
FAR[5, 7] = True
PERFECT = dict.fromkeys(NAMES, 1.0) | {"hd95": 0.0, "assd": 0.0, "betti0_error": 0.0, "ece": 0.0}
WRONG = dict.fromkeys(NAMES, 0.0) | {"hd95": 10.0, "assd": 10.0}
NO_FOREGROUND = {"sensitivity": None, "thin_sensitivity": None, "average_precision": None, "mcc": None, "auc_roc": None}
NO_BACKGROUND = {"specificity": None, "thin_sensitivity": None, "mcc": None, "auc_roc": None}
# Of prediction and truth: what differs from PERFECT or WRONG. The diagonal of 6 x 8 pixels is 10.
CASES = {
    "both empty": (EMPTY, EMPTY, PERFECT, {"precision": None, **NO_FOREGROUND}),
    "both full": (FULL, FULL, PERFECT, NO_BACKGROUND),
    "both one pixel": (DOT, DOT, PERFECT, {}),
    "only the prediction empty": (
        *(EMPTY, DOT, WRONG),
        {"specificity": 1.0, "accuracy": 47 / 48, "ece": 1 / 48, "auc_roc": 0.5, "average_precision": 1 / 48}
        | {"betti0_error": 1.0},
    ),
    "only the truth empty": (
        *(DOT, EMPTY, WRONG),
        {"specificity": 47 / 48, "accuracy": 47 / 48, "ece": 1 / 48, "betti0_error": 1.0, **NO_FOREGROUND},
    ),
    "only the prediction full": (FULL, EMPTY, WRONG, {"ece": 1.0, "betti0_error": 1.0, **NO_FOREGROUND}),
    "only the truth full": (
        *(EMPTY, FULL, WRONG),
        {"ece": 1.0, "average_precision": 1.0, "betti0_error": 1.0, **NO_BACKGROUND},
    ),
    "two pixels apart": (
        *(DOT, FAR, WRONG),
        {"specificity": 46 / 47, "accuracy": 46 / 48, "ece": 2 / 48, "hd95": 5.0, "assd": 5.0, "mcc": -1 / 47}
        | {"auc_roc": 23 / 47, "average_precision": 1 / 48},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_empty_full_and_one_pixel_masks(case):
    pred, truth, usual, changes = CASES[case]
    found, _ = all_of(pred.astype(np.float32), truth)
    assert found == pytest.approx(usual | changes)


def test_a_field_of_view_that_is_a_rectangle_is_the_cropped_image():
    probability, truth = curves(3)
    fov = np.zeros(truth.shape, bool)
    fov[10:50, 5:60] = True
    score = score_pair(probability > 0.5, truth, NAMES, probability, fov)
    cropped = score_pair((probability > 0.5)[10:50, 5:60], truth[10:50, 5:60], NAMES, probability[10:50, 5:60])
    assert score.fov == cropped
    assert replace(score, fov=None) == score_pair(probability > 0.5, truth, NAMES, probability)


def test_a_truth_outside_of_the_field_of_view_is_one_that_is_empty():
    score = score_pair(FULL, DOT, ["sensitivity"], None, FAR)
    assert score.fov.one_empty
    assert (score.fov.dice, score.fov.hd95, score.fov.others) == (0.0, 10.0, {"sensitivity": None})
    with pytest.raises(ValueError, match="has no pixel"):
        score_pair(FULL, DOT, fov=EMPTY)


def test_without_probabilities_the_metrics_of_the_masks_remain():
    assert list(score_pair(DOT, FAR, NAMES).others) == [
        name for name in NAMES if name not in ("dice", "hd95", "auc_roc", "average_precision", "ece")
    ]
