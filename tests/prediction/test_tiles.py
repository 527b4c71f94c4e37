"""Sliding windows cover an image, and their blend gives back what every window agrees on."""

import itertools

import pytest
import torch

from prediction.tiles import blend, window_starts, windows


@pytest.mark.parametrize(("length", "size", "overlap"), [(100, 32, 0.25), (33, 32, 0.5), (64, 32, 0.0), (999, 32, 0.9)])
def test_windows_cover_every_pixel_with_the_overlap_asked_for(length, size, overlap):
    found = window_starts(length, size, overlap)
    assert found[0] == 0
    assert found[-1] == length - size
    steps = [b - a for a, b in itertools.pairwise(found)]
    assert all(0 < step <= max(1, size * (1 - overlap)) for step in steps)
    assert max(steps) - min(steps) <= 1


def test_a_small_image_is_one_window():
    assert window_starts(20, 32, 0.25) == [0]
    [window] = windows((20, 30), 32, 0.25)
    assert (window.top, window.bottom, window.left, window.right) == (0, 20, 0, 30)


@pytest.mark.parametrize("size", [(70, 90), (20, 100), (32, 33)])
def test_windows_that_agree_blend_to_what_they_agree_on(size):
    truth = torch.randn(2, *size)
    spread = windows(size, 32, 0.25)
    tiles = ((w, truth[:, w.top : w.bottom, w.left : w.right]) for w in spread)
    torch.testing.assert_close(blend(size, tiles, spread), truth)


def test_the_middle_of_a_window_counts_for_more_than_its_border():
    spread = windows((32, 48), 32, 0.5)
    assert [w.left for w in spread] == [0, 16]
    tiles = ((w, torch.full((1, 32, 32), float(w.left))) for w in spread)
    row = blend((32, 48), tiles, spread)[0, 10]
    assert row[:16].eq(0).all()
    torch.testing.assert_close(row[32:], torch.full((16,), 16.0))
    assert (row[16:32].diff() > 0).all()
