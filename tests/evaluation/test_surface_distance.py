"""The Hausdorff distance of our own against MONAI's, to the bit, and against all pairs of edge pixels by scipy."""

import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance
from monai.metrics.utils import get_mask_edges
from scipy import ndimage
from scipy.spatial.distance import cdist

from datasets.converters.synthetic import draw_vessels
from evaluation import surface_distance
from evaluation.surface_distance import hausdorff_percentile, mask_edges

NEVER = 10**15
WAYS = {  # the costs that force a way of finding the distances
    "steps": {"_TABLE_COST_OF_ENTRY": NEVER, "_TRANSFORM_COST_OF_PIXEL": NEVER},
    "table": {"_TABLE_COST_OF_ENTRY": 0},
    "steps, then table": {"_TABLE_COST_OF_ENTRY": 1000, "_TRANSFORM_COST_OF_PIXEL": NEVER},
    "transform": {"_TABLE_COST_OF_ENTRY": NEVER, "_TRANSFORM_COST_OF_PIXEL": 0},
    "steps, then transform": {"_TABLE_COST_OF_ENTRY": NEVER, "_TRANSFORM_COST_OF_PIXEL": 20},
}


def monai_hd95(pred, truth):
    pair = torch.from_numpy(pred)[None, None], torch.from_numpy(truth)[None, None]
    return float(compute_hausdorff_distance(*pair, include_background=True, percentile=95))


def direct_distances(pred, truth):
    """Of every edge pixel to its nearest of the other mask, both ways, by all pairs, in float64."""
    distances = cdist(*(np.argwhere(direct_edges(mask)) for mask in (pred, truth)))
    return distances.min(axis=1), distances.min(axis=0)


def direct_edges(mask):
    padded = np.pad(mask, 1)
    return mask & ~(padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:])


def assert_right(pred, truth, monai):
    value = hausdorff_percentile(pred, truth)
    if monai:  # slow to call
        assert value == monai_hd95(pred, truth)
    both = direct_distances(pred, truth)
    assert value == max(float(torch.quantile(torch.tensor(d, dtype=torch.float32), 0.95)) for d in both)
    # float32 and the rank's rounding are all that sets it apart from the definition in float64.
    assert value == pytest.approx(max(np.percentile(d, 95) for d in both), rel=1e-5, abs=1e-4)


def blob(rng, shape):
    field = ndimage.gaussian_filter(rng.standard_normal(shape), rng.uniform(0.5, 6))
    return field >= np.quantile(field, rng.uniform(0.2, 0.9))


def sparse(rng, shape):
    mask = rng.random(shape) < rng.choice([0.002, 0.02, 0.5])
    mask[rng.integers(shape[0]), rng.integers(shape[1])] = True
    return mask


def pixel(rng, shape):
    mask = np.zeros(shape, bool)
    mask[rng.integers(shape[0]), rng.integers(shape[1])] = True
    return mask


def box(rng, shape):
    """A filled rectangle, often up to the border."""
    mask = np.zeros(shape, bool)
    top, left = (int(rng.integers(-side // 2, side)) for side in shape)
    mask[max(0, top) : top + shape[0] // 2 + 1, max(0, left) : left + shape[1] // 2 + 1] = True
    return mask if mask.any() else np.ones(shape, bool)


def full(rng, shape):
    return np.ones(shape, bool)


KINDS = [blob, sparse, pixel, box, full]
SHAPES = [(48, 64), (61, 37), (1, 80), (80, 1), (2, 2), (3, 50), (1, 1), (33, 4)]


@pytest.mark.parametrize("way", [None, *WAYS])
@pytest.mark.parametrize("shape", SHAPES)
def test_random_pairs_of_every_kind_and_shape(monkeypatch, shape, way):
    for name, cost in WAYS.get(way, {}).items():
        monkeypatch.setattr(surface_distance, name, cost)
    rng = np.random.default_rng(shape)
    for one in KINDS:
        for other in KINDS:
            assert_right(one(rng, shape), other(rng, shape), monai=way is None)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("way", [None, *WAYS])
def test_vessel_trees(monkeypatch, seed, way):
    for name, cost in WAYS.get(way, {}).items():
        monkeypatch.setattr(surface_distance, name, cost)
    truth, other = (draw_vessels(np.random.default_rng(s), 128, fundus=s % 2 == 0)[1] == 1 for s in (seed, seed + 1))
    rng = np.random.default_rng(seed)
    frayed = truth ^ (ndimage.gaussian_filter(rng.standard_normal(truth.shape), 1.5) > 0.3)
    near = np.roll(truth, rng.integers(-3, 4, 2), (0, 1))
    for pred in (other, frayed, near, truth):
        assert_right(pred, truth, monai=way is None)


def test_pairs_of_the_size_that_runs_use_agree_with_monai():
    trees = [draw_vessels(np.random.default_rng(seed), 512, fundus=seed % 2 == 0)[1] == 1 for seed in range(2)]
    noise = np.random.default_rng(0).random((512, 512)) < 0.5
    left, right = noise.copy(), noise.copy()
    left[:, 200:], right[:, :312] = False, False
    for pred in (trees[1], noise, np.roll(trees[0], 2, 0)):
        assert hausdorff_percentile(pred, trees[0]) == monai_hd95(pred, trees[0])
    assert hausdorff_percentile(left, right) == monai_hd95(left, right)


@pytest.mark.parametrize("way", [None, *WAYS])
@pytest.mark.parametrize("shape", [(1, 20_000), (20_000, 1), (3, 17_000)])
def test_an_image_too_long_for_short_integers(monkeypatch, shape, way):
    for name, cost in WAYS.get(way, {}).items():
        monkeypatch.setattr(surface_distance, name, cost)
    pred, truth = np.zeros(shape, bool), np.zeros(shape, bool)
    pred.flat[:3], truth.flat[[0, -1]] = True, True
    for pair in ((pred, truth), (truth, pred)):
        assert hausdorff_percentile(*pair) == monai_hd95(*pair) > 10_000


@pytest.mark.parametrize("seed", range(10))
def test_edges_are_monai_s_also_at_the_border(seed):
    rng = np.random.default_rng(seed)
    for kind in KINDS:
        for shape in SHAPES:
            mask = kind(rng, shape)
            before = mask.copy()
            np.testing.assert_array_equal(mask_edges(mask), direct_edges(mask))
            uncropped = get_mask_edges(mask, mask, crop=False)[0]
            np.testing.assert_array_equal(mask_edges(mask), uncropped)
            np.testing.assert_array_equal(mask, before)


def test_the_larger_direction_counts_and_the_percentile_is_linear():
    line = np.zeros((40, 30), bool)
    line[0, :5] = True
    more = line.copy()
    more[30, 0] = True
    # From `line`, all distances are 0. From `more` they are 0, 0, 0, 0, 0, 30, of which 0.95 x 5 = 4.75 is the rank.
    for pair in ((line, more), (more, line)):
        assert hausdorff_percentile(*pair) == pytest.approx(0.75 * 30, rel=1e-6)
    assert hausdorff_percentile(line, line) == 0.0


@pytest.mark.parametrize("share", [0.5, 0.95, 1.0])
def test_other_shares(share):
    rng = np.random.default_rng(3)
    pred, truth = blob(rng, (60, 70)), sparse(rng, (60, 70))
    both = direct_distances(pred, truth)
    expected = max(float(torch.quantile(torch.tensor(d, dtype=torch.float32), share)) for d in both)
    assert hausdorff_percentile(pred, truth, share) == expected


def test_more_edge_pixels_than_torch_s_quantile_takes(monkeypatch):
    monkeypatch.setattr(surface_distance, "_QUANTILE_LIMIT", 10)
    rng = np.random.default_rng(4)
    pred, truth = blob(rng, (60, 70)), sparse(rng, (60, 70))
    assert hausdorff_percentile(pred, truth) == pytest.approx(monai_hd95(pred, truth), rel=1e-5)


def test_views_and_read_only_masks():
    rng = np.random.default_rng(5)
    pred, truth = blob(rng, (40, 50)), blob(rng, (40, 50))
    expected = hausdorff_percentile(pred, truth)
    for mask in (pred, truth):
        mask.flags.writeable = False
    assert hausdorff_percentile(pred, truth) == expected
    assert math.isclose(hausdorff_percentile(pred[::-1].T, truth[::-1].T), expected, rel_tol=1e-6)
