"""Masks hold the pixels that an object covers by half or more; the same coverage paints the image."""

import numpy as np
import pytest

from datasets.converters import shapes, synthetic
from datasets.converters.drawing import coverage, stroke_coverage

SIZE = 64
# A bar of 8 rows whose first and last row are covered by `share`: drawn on the canvas of 4 x 4 cells a pixel.
SHARES = [(0.25, False), (0.5, True), (0.75, True)]


def bar(share: float) -> np.ndarray:
    """Coverage of rows 20..27; rows 19 and 28 are covered by `share`."""

    def paint(pen, scale):
        more = round(share * scale)
        pen.rectangle([0, 20 * scale - more, SIZE * scale, 28 * scale - 1 + more], fill=255)

    return coverage(SIZE, paint)


@pytest.mark.parametrize(("share", "belongs"), SHARES)
def test_pixels_half_covered_by_a_curve_are_labelled(monkeypatch, share, belongs):
    covered = bar(share)
    assert covered[19, 0] == pytest.approx(share, abs=1 / 255)
    monkeypatch.setattr(shapes, "_curve", lambda *_, **__: covered)
    monkeypatch.setattr(shapes, "_degrade", lambda _, image: (image, np.ones((SIZE, SIZE), bool)))
    monkeypatch.setattr(shapes, "_region", lambda *_: np.zeros((SIZE, SIZE)))
    _, labels = shapes.draw_shapes(np.random.default_rng(0), SIZE)
    expected = np.zeros((SIZE, SIZE))
    expected[19 if belongs else 20 : 29 if belongs else 28] = 3
    np.testing.assert_array_equal(labels, expected)


def test_later_objects_hide_earlier_ones(monkeypatch):
    def half(rows):
        covered = np.zeros((SIZE, SIZE))
        covered[rows] = 1
        return covered

    monkeypatch.setattr(shapes, "_curve", lambda *_, **__: half(slice(0, 40)))
    monkeypatch.setattr(shapes, "_region", lambda *_: half(slice(30, 64)))
    monkeypatch.setattr(shapes, "_degrade", lambda _, image: (image, np.ones((SIZE, SIZE), bool)))
    tops = set()
    for seed in range(20):
        _, labels = shapes.draw_shapes(np.random.default_rng(seed), SIZE)
        assert (labels[:30] == 3).all()
        assert len(np.unique(labels[30:40])) == 1
        tops.add(int(labels[35, 0]))
    assert tops == {1, 2, 3}


def test_a_dark_surround_has_no_labels(monkeypatch):
    visible = np.zeros((SIZE, SIZE), bool)
    visible[:22] = True
    monkeypatch.setattr(shapes, "_curve", lambda *_, **__: bar(0))
    monkeypatch.setattr(shapes, "_region", lambda *_: np.zeros((SIZE, SIZE)))
    monkeypatch.setattr(shapes, "_degrade", lambda _, image: (image, visible))
    _, labels = shapes.draw_shapes(np.random.default_rng(0), SIZE)
    assert sorted(set(np.nonzero(labels)[0].tolist())) == [20, 21]


@pytest.mark.parametrize("fundus", [True, False])
def test_pixels_half_covered_by_a_stroke_are_vessel(monkeypatch, fundus):
    points, radii = np.array([[20.3, 31.6], [30.0, 35.2], [44.7, 30.1]]), np.array([2.3, 1.7, 0.9])
    monkeypatch.setattr(synthetic, "_grow", lambda *_: iter([(points, radii)]))
    _, labels = synthetic.draw_vessels(np.random.default_rng(0), SIZE, fundus)
    covered = stroke_coverage(SIZE, points, 2 * radii)
    np.testing.assert_array_equal(labels == 1, covered >= 0.5)
    assert 40 < (labels == 1).sum() < 200
    assert (labels == 2).any()


@pytest.mark.parametrize(("share", "belongs"), SHARES)
def test_pixels_half_covered_at_the_border_are_vessel(monkeypatch, share, belongs):
    covered, stroke = bar(share), (np.zeros((2, 2)), np.ones(2))
    monkeypatch.setattr(synthetic, "_grow", lambda *_: iter([stroke]))
    # 8 bits hold no exact half, so the border is taken to the value itself.
    monkeypatch.setattr(synthetic, "stroke_coverage", lambda *_: np.where(abs(covered - 0.5) < 0.01, 0.5, covered))
    _, labels = synthetic.draw_vessels(np.random.default_rng(0), SIZE, False)
    rows = np.nonzero((labels == 1).all(1))[0]
    assert (rows.min(), rows.max()) == ((19, 28) if belongs else (20, 27))


def test_vessels_are_painted_where_the_mask_says(monkeypatch):
    points, radii = np.array([[8.0, 32.0], [56.0, 32.0]]), np.array([3.0, 3.0])
    drawn = []
    for strokes in ([], [(points, radii)]):
        monkeypatch.setattr(synthetic, "_grow", lambda *_, s=strokes: iter(s))
        drawn.append(synthetic.draw_vessels(np.random.default_rng(0), SIZE, False))
    change = drawn[0][0].astype(int) - drawn[1][0]
    mask = drawn[1][1] == 1
    rows, columns = np.nonzero(mask)
    assert (rows.min(), rows.max()) == (29, 34)
    assert (change[mask].mean(-1) > 5).all()
    far = np.ones_like(mask)
    far[rows.min() - 5 : rows.max() + 6] = False
    assert not change[far].any()
    assert columns.min() < 8
