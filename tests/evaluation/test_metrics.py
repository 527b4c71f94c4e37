"""Dice and HD95 against a direct implementation, and the summary of scores against numbers worked out by hand."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.distance import cdist

from evaluation import metrics
from evaluation.metrics import PairScore, bootstrap_interval, dice, score_pair, summarize


def direct_edges(mask):
    """Coordinates of the foreground pixels with a 4-neighbour that is background or outside the image."""
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.argwhere(mask & ~inside)


def hd95(pred, truth):
    return score_pair(pred, truth).hd95


def direct_hd95(pred, truth):
    distances = cdist(direct_edges(pred), direct_edges(truth))
    return max(np.percentile(distances.min(axis=1), 95), np.percentile(distances.min(axis=0), 95))


def vessels(seed, shape=(72, 96), branches=5):
    """Crooked lines of one to five pixels' width, some of them running off the image."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, bool)
    for _ in range(branches):
        y, x, angle = rng.uniform(0, shape[0]), rng.uniform(0, shape[1]), rng.uniform(0, 2 * np.pi)
        line = np.zeros(shape, bool)
        for _ in range(max(shape)):
            angle += rng.normal(0, 0.15)
            y, x = y + np.sin(angle), x + np.cos(angle)
            if not (0 <= y < shape[0] and 0 <= x < shape[1]):
                break
            line[int(y), int(x)] = True
        width = int(rng.integers(0, 3))
        mask |= ndimage.binary_dilation(line, iterations=width) if width and line.any() else line
    return mask


def points(shape, *pixels):
    mask = np.zeros(shape, bool)
    for pixel in pixels:
        mask[pixel] = True
    return mask


@pytest.mark.parametrize(
    ("pred", "truth", "expected"),
    [
        ([[1, 1, 0], [0, 0, 0]], [[0, 1, 1], [0, 0, 0]], 0.5),
        ([[1, 1, 1], [1, 1, 1]], [[1, 0, 0], [0, 0, 0]], 2 / 7),
        ([[1, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 1]], 0.0),
        ([[0, 1, 0], [0, 1, 1]], [[0, 1, 0], [0, 1, 1]], 1.0),
        ([[0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]], 1.0),
        ([[0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 1]], 0.0),
    ],
)
def test_dice_of_small_masks(pred, truth, expected):
    pred, truth = np.array(pred, bool), np.array(truth, bool)
    assert dice(pred, truth) == expected
    assert dice(truth, pred) == expected


@pytest.mark.parametrize(
    ("pred", "truth", "expected"),
    [
        (((0, 0),), ((3, 4),), 5.0),
        (((2, 3),), ((2, 3),), 0.0),
        (((0, 0),), ((0, 8),), 8.0),  # along the border, corner to corner
        (((5, 0),), ((5, 8), (0, 0)), 8.0 - 0.05 * (8.0 - 5.0)),  # quantile of 5 and 8, linear between them
    ],
)
def test_hd95_of_single_pixels(pred, truth, expected):
    pred, truth = points((6, 9), *pred), points((6, 9), *truth)
    assert hd95(pred, truth) == pytest.approx(expected, abs=1e-6)
    assert hd95(truth, pred) == pytest.approx(expected, abs=1e-6)


def test_hd95_is_the_larger_of_two_percentiles_not_that_of_all_distances():
    """100 edge pixels lie on the truth and 10 of the truth's far off: pooled, the percentile would be another."""
    truth = np.zeros((40, 130), bool)
    truth[0, :100] = True
    pred = truth.copy()
    truth[30, :10] = True
    there = np.zeros(100)
    back = np.concatenate([np.zeros(100), np.full(10, 30.0)])
    pooled = np.percentile(np.concatenate([there, back]), 95)
    assert pooled != np.percentile(back, 95) == 30.0
    assert hd95(pred, truth) == hd95(truth, pred) == 30.0


def test_hd95_counts_edges_alone():
    """The distances of inner pixels, which are many, would pull the percentile down."""
    inner, outer = np.zeros((40, 40), bool), np.zeros((40, 40), bool)
    inner[15:25, 15:25] = True
    outer[5:35, 5:35] = True
    assert hd95(inner, outer) == pytest.approx(direct_hd95(inner, outer), abs=1e-5)
    assert hd95(inner, outer) > 10.0


def border_cases():
    full = np.ones((7, 12), bool)
    ring = full.copy()
    ring[1:-1, 1:-1] = False
    corner = np.zeros((7, 12), bool)
    corner[:3, :2] = True
    column = np.zeros((7, 12), bool)
    column[:, -1] = True
    row = np.zeros((7, 12), bool)
    row[-1] = True
    return {"full": full, "ring": ring, "corner": corner, "column": column, "row": row}


@pytest.mark.parametrize("truth", list(border_cases()))
@pytest.mark.parametrize("pred", list(border_cases()))
def test_hd95_of_masks_at_the_border(pred, truth):
    pred, truth = border_cases()[pred], border_cases()[truth]
    assert hd95(pred, truth) == pytest.approx(direct_hd95(pred, truth), abs=1e-5)
    assert dice(pred, truth) == 2 * np.sum(pred * truth) / (np.sum(pred) + np.sum(truth))


def test_the_outside_of_the_image_is_background():
    """A full mask has the image's border for its edge, so it is as far from its ring as the ring from itself."""
    cases = border_cases()
    assert hd95(cases["full"], cases["ring"]) == 0.0


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("shape", [(72, 96), (64, 40)])
def test_vessels_agree_with_the_direct_way(seed, shape):
    pred, truth = vessels(seed, shape), vessels(seed + 100, shape)
    score = score_pair(pred, truth)
    assert score.hd95 == pytest.approx(direct_hd95(pred, truth), rel=1e-6, abs=1e-4)
    assert score.dice == 2 * np.sum(pred * truth) / (np.sum(pred) + np.sum(truth))
    assert not score.one_empty


def blob(rng, shape):
    field = ndimage.gaussian_filter(rng.standard_normal(shape), rng.uniform(0.5, 6))
    return field >= np.quantile(field, rng.uniform(0.2, 0.9))


def noise(rng, shape):
    return (rng.random(shape) < rng.choice([0.002, 0.02, 0.5])) | pixel(rng, shape)


def pixel(rng, shape):
    return points(shape, (rng.integers(shape[0]), rng.integers(shape[1])))


def box(rng, shape):
    """A filled rectangle, often up to the border."""
    mask = np.zeros(shape, bool)
    top, left = (int(rng.integers(-side // 2, side)) for side in shape)
    mask[max(0, top) : top + shape[0] // 2 + 1, max(0, left) : left + shape[1] // 2 + 1] = True
    return mask if mask.any() else ~mask


@pytest.mark.parametrize("shape", [(48, 64), (61, 37), (1, 80), (80, 1), (2, 2), (3, 50), (1, 1), (33, 4)])
def test_random_pairs_of_every_kind_agree_with_the_direct_way(shape):
    rng = np.random.default_rng(shape)
    kinds = (blob, noise, pixel, box)
    for pred, truth in ((one(rng, shape), other(rng, shape)) for one in kinds for other in kinds):
        assert hd95(pred, truth) == pytest.approx(direct_hd95(pred, truth), rel=1e-6, abs=1e-4)


@pytest.mark.parametrize("shape", [(1, 20_000), (20_000, 1)])
def test_hd95_of_very_long_images(shape):
    pred, truth = np.zeros(shape, bool), np.zeros(shape, bool)
    pred.flat[:3], truth.flat[[0, -1]] = True, True
    assert hd95(pred, truth) == hd95(truth, pred) == pytest.approx(direct_hd95(pred, truth), rel=1e-6)


def test_a_score_warns_of_nothing_and_only_a_distance_imports_monai():
    code = (
        "import sys, numpy as np; from evaluation.metrics import score_pair; mask = np.eye(5, dtype=bool);"
        "score_pair(mask, ~mask & False); assert 'monai' not in sys.modules; score_pair(mask, mask[::-1])"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_both_empty_is_a_perfect_score():
    empty = np.zeros((30, 40), bool)
    assert score_pair(empty, empty) == PairScore(dice=1.0, hd95=0.0, one_empty=False)


@pytest.mark.parametrize("other", [points((30, 40), (3, 3)), np.ones((30, 40), bool)])
def test_one_empty_costs_the_image_diagonal(other):
    empty = np.zeros((30, 40), bool)
    expected = PairScore(dice=0.0, hd95=50.0, one_empty=True)
    assert score_pair(empty, other) == score_pair(other, empty) == expected


def test_tensors_arrays_and_views_score_alike():
    pred, truth = vessels(1), vessels(2)
    expected = score_pair(pred, truth)
    assert score_pair(torch.from_numpy(pred), torch.from_numpy(truth)) == expected
    turned = score_pair(pred[::-1, ::-1], truth[::-1, ::-1])
    assert (turned.dice, turned.hd95) == (expected.dice, pytest.approx(expected.hd95))
    assert hd95(pred.T, truth.T) == pytest.approx(expected.hd95)
    truth.flags.writeable = False
    assert score_pair(pred, truth) == expected


def test_scoring_leaves_the_masks_alone():
    pred, truth = vessels(1), vessels(2)
    before = pred.copy(), truth.copy()
    score_pair(pred, truth)
    assert (pred == before[0]).all()
    assert (truth == before[1]).all()


@pytest.mark.parametrize("measure", [dice, hd95, score_pair])
def test_masks_that_are_none_are_refused(measure):
    mask = np.ones((4, 5), bool)
    with pytest.raises(TypeError, match="bool"):
        measure(mask.astype(np.uint8), mask)
    with pytest.raises(TypeError, match="bool"):
        measure(mask, torch.rand(4, 5))
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        measure(mask, mask.T)
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        measure(mask[None], mask[None])


def test_bootstrap_of_a_known_case():
    """The mean of n draws of 0 and 1 is binomial: its percentiles are known, and 2000 resamples come close."""
    values = [0.0] * 50 + [1.0] * 50
    low, high = bootstrap_interval(values)
    assert low == pytest.approx(0.40, abs=0.015)  # binom(100, 0.5).ppf(0.025) = 40
    assert high == pytest.approx(0.60, abs=0.015)


def test_bootstrap_percentiles_of_two_values_are_exact():
    """The mean of two draws of 0 and 1 is 0, 1/2 or 1 with 1/4, 1/2, 1/4: level 0.4 cuts inside the half."""
    assert bootstrap_interval([0.0, 1.0], level=0.4) == (0.5, 0.5)
    assert bootstrap_interval([0.0, 1.0], level=0.6) == (0.0, 1.0)


def test_bootstrap_does_not_depend_on_how_many_resamples_are_drawn_at_once(monkeypatch):
    values = np.random.default_rng(5).normal(size=30)
    expected = bootstrap_interval(values)
    for size in (1, 1000, 10**9):
        monkeypatch.setattr(metrics, "_RESAMPLED_AT_ONCE", size)
        assert bootstrap_interval(values) == expected


def test_bootstrap_is_the_same_every_time_and_touches_no_global_generator():
    values = np.random.default_rng(5).normal(size=30)
    np.random.seed(3)
    first = bootstrap_interval(values)
    drawn = np.random.rand()
    np.random.seed(3)
    assert drawn == np.random.rand()
    assert bootstrap_interval(values) == first
    assert bootstrap_interval(values, seed=1) != first
    assert first[0] < values.mean() < first[1]
    wide = bootstrap_interval(values, level=0.99)
    assert wide[0] < first[0] < first[1] < wide[1]


def test_bootstrap_of_one_value_has_no_width():
    assert bootstrap_interval([0.25]) == (0.25, 0.25)


@pytest.mark.parametrize(
    ("values", "options"),
    [([], {}), ([[1.0]], {}), ([1.0], {"n": 0}), ([1.0], {"level": 0.0}), ([1.0], {"level": 1.0})],
)
def test_bootstrap_refuses_nonsense(values, options):
    with pytest.raises(ValueError, match="expected"):
        bootstrap_interval(values, **options)


def test_summary_of_scores_made_by_hand():
    rows = [(0.8, 2.0, False), (0.6, 4.0, False), (0.0, 50.0, True), (1.0, 0.0, False)]
    summary = summarize([PairScore(*row) for row in rows])
    assert summary["n"] == 4
    assert summary["n_empty"] == 1
    assert summary["dice"]["mean"] == pytest.approx(0.6)
    assert summary["dice"]["std"] == pytest.approx(math.sqrt((0.04 + 0.0 + 0.36 + 0.16) / 3))
    assert summary["dice"]["ci95"] == list(bootstrap_interval([0.8, 0.6, 0.0, 1.0]))
    assert summary["hd95"]["mean"] == pytest.approx(14.0)
    assert summary["hd95"]["std"] == pytest.approx(math.sqrt((144 + 100 + 1296 + 196) / 3))
    assert summary["hd95"]["ci95"] == list(bootstrap_interval([2.0, 4.0, 50.0, 0.0]))
    assert summary["hd95"]["mean_without_empty"] == pytest.approx(2.0)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_summary_where_every_pair_has_an_empty_mask():
    summary = summarize([PairScore(0.0, 50.0, True), PairScore(0.0, 50.0, True)])
    assert summary["n_empty"] == 2
    assert summary["hd95"]["mean"] == 50.0
    assert summary["hd95"]["mean_without_empty"] is None


def test_two_empty_masks_count_as_measured():
    summary = summarize([score_pair(np.zeros((3, 4), bool), np.zeros((3, 4), bool)), PairScore(0.0, 5.0, True)])
    assert summary["n_empty"] == 1
    assert summary["hd95"]["mean_without_empty"] == 0.0


def test_summary_of_one_score_and_of_none():
    summary = summarize([PairScore(0.5, 3.0, False)])
    assert summary["dice"] == {"mean": 0.5, "std": 0.0, "ci95": [0.5, 0.5]}
    assert summary["hd95"] == {"mean": 3.0, "std": 0.0, "ci95": [3.0, 3.0], "mean_without_empty": 3.0}
    with pytest.raises(ValueError, match="no scores"):
        summarize([])
