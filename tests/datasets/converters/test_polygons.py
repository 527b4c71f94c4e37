"""Pixels of a polygon are those whose centres lie inside."""

import numpy as np
import pytest
from matplotlib.path import Path as Outline

from datasets.converters.polygons import fill_polygons


def polygon(*points):
    return np.array(points, float)


def rectangle(left, top, right, bottom):
    return polygon((left, top), (right, top), (right, bottom), (left, bottom))


def test_a_rectangle_of_whole_coordinates_is_as_wide_as_their_difference():
    expected = np.zeros((6, 8), bool)
    expected[1:4, 2:5] = True
    np.testing.assert_array_equal(fill_polygons([rectangle(2, 1, 5, 4)], (6, 8)), expected)
    np.testing.assert_array_equal(fill_polygons([rectangle(2, 1, 5, 4)[::-1]], (6, 8)), expected)


def test_neighbours_neither_overlap_nor_leave_a_gap():
    """Also where the common edge runs through centres."""
    for edge in (3.0, 3.2, 3.5, 3.8):
        parts = [fill_polygons([rectangle(0, 0, edge, 6)], (6, 8)), fill_polygons([rectangle(edge, 0, 8, 6)], (6, 8))]
        assert (parts[0] ^ parts[1]).all()
        parts = [fill_polygons([rectangle(0, 0, 8, edge)], (6, 8)), fill_polygons([rectangle(0, edge, 8, 6)], (6, 8))]
        assert (parts[0] ^ parts[1]).all()


def test_the_union_of_several():
    both = [rectangle(1, 1, 4, 4), rectangle(3, 3, 6, 5)]
    one, other = (fill_polygons([p], (6, 8)) for p in both)
    assert (one & other).any()
    np.testing.assert_array_equal(fill_polygons(both, (6, 8)), one | other)
    assert not fill_polygons([], (6, 8)).any()


def test_parts_outside_are_cut_off_and_degenerate_ones_cover_nothing():
    assert fill_polygons([rectangle(-50, -50, 50, 50)], (6, 8)).all()
    assert not fill_polygons([rectangle(20, 20, 30, 30)], (6, 8)).any()
    assert not fill_polygons([polygon((1, 1)), polygon((1, 1), (5, 5)), polygon((1, 1), (3, 3), (5, 5))], (6, 8)).any()


def test_where_a_polygon_crosses_itself_twice_is_outside():
    pentagram = polygon(*[(20 + 18 * np.sin(4 * np.pi * k / 5), 20 - 18 * np.cos(4 * np.pi * k / 5)) for k in range(5)])
    filled = fill_polygons([pentagram], (40, 40))
    assert not filled[20, 20]
    assert filled[6, 20]


@pytest.mark.parametrize("seed", range(20))
def test_random_polygons_agree_with_matplotlib(seed):
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 12))
    radii = rng.uniform(3, 30, 12)
    points = np.stack([25 + radii * np.cos(angles), 20 + radii * np.sin(angles)], -1)
    y, x = np.mgrid[:40, :50] + 0.5
    expected = Outline(points, closed=False).contains_points(np.stack([x.ravel(), y.ravel()], -1)).reshape(40, 50)
    np.testing.assert_array_equal(fill_polygons([points], (40, 50)), expected)


def test_areas_are_kept_on_average():
    """Painting the outline too would add about half the circumference."""
    rng = np.random.default_rng(0)
    drawn = exact = 0.0
    for _ in range(100):
        corners = rng.uniform(5, 45, (3, 2))
        (ax, ay), (bx, by) = corners[1] - corners[0], corners[2] - corners[0]
        exact += abs(ax * by - ay * bx) / 2
        drawn += fill_polygons([corners], (50, 50)).sum()
    assert drawn == pytest.approx(exact, rel=0.01)
