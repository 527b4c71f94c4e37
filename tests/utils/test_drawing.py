"""Masks drawn over images pixel for pixel, and captions that keep to their width."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from utils.drawing import (
    LABEL_COLOURS,
    LEGEND_HEIGHT,
    draw_caption,
    draw_masks,
    label_colour,
    label_palette,
    with_legend,
)

WHITE, RED = (255, 255, 255), (255, 0, 0)


def square(top: int, left: int) -> np.ndarray:
    mask = np.zeros((12, 12), bool)
    mask[top : top + 3, left : left + 3] = True
    return mask


@pytest.mark.parametrize(("opacity", "expected"), [(0, 100), (1, 255), (0.5, 177.5)])
def test_an_area_is_blended_and_has_a_line_around_it(opacity, expected):
    image = np.full((12, 12, 3), 100, np.uint8)
    masks = np.stack([np.zeros((12, 12), bool), square(4, 4)])
    drawn = draw_masks(image, masks, opacity)
    assert drawn[5, 5, 0] == pytest.approx(expected, abs=0.5)  # the second label's red is 255
    assert tuple(drawn[3, 5]) == tuple(drawn[7, 5]) == tuple(drawn[5, 3]) == tuple(drawn[5, 7]) == label_colour(1)
    changed = (drawn != image).any(axis=2)
    assert changed.sum() == 12 + (9 if opacity else 0)
    assert (image == 100).all()


def test_lines_are_as_wide_as_asked_for():
    image = np.zeros((12, 12, 3), np.uint8)
    drawn = draw_masks(image, square(4, 4)[None], opacity=0, line_width=2)
    assert drawn[2, 5].any()
    assert not drawn[1, 5].any()


def test_colours_begin_again_after_the_last():
    assert label_colour(len(LABEL_COLOURS)) == label_colour(0)
    assert len(set(LABEL_COLOURS)) == len(LABEL_COLOURS)


def captioned(words, width):
    picture = Image.new("RGB", (400, 30))
    draw_caption(ImageDraw.Draw(picture), 10, 15, width, words, 15)
    return np.asarray(picture)


@pytest.mark.parametrize("width", [0, 5, 20, 100])
def test_a_caption_keeps_to_its_width(width):
    drawn = captioned([("a name that is much longer than its room", WHITE), ("more", RED)], width)
    columns = np.flatnonzero(drawn.any(axis=(0, 2)))
    assert columns.size == 0 or (columns.min() >= 10 and columns.max() <= 10 + width)
    assert (columns.size > 0) == (width >= 20)


def test_words_stand_beside_each_other_in_their_colours():
    drawn = captioned([("one", WHITE), ("two", RED)], 300).astype(int)
    white = np.flatnonzero((drawn[..., 1] > 200).any(axis=0))
    red = np.flatnonzero(((drawn[..., 0] > 200) & (drawn[..., 1] < 50)).any(axis=0))
    assert white.size > 0
    assert red.size > 0
    assert white.max() < red.min()


def test_the_palette_of_an_index_mask_has_the_labels_colours():
    palette = np.frombuffer(label_palette([0, 3, 7]), np.uint8).reshape(256, 3)
    assert [tuple(palette[value]) for value in (0, 3, 7)] == [(0, 0, 0), label_colour(0), label_colour(1)]
    assert (palette[[1, 2, 255]] == 128).all()


def test_a_legend_lies_below_the_image_in_the_labels_colours():
    image = np.full((40, 200, 3), 9, np.uint8)
    drawn = with_legend(image, ["Vein", "Disc"])
    assert drawn.shape == (40 + LEGEND_HEIGHT, 200, 3)
    assert np.array_equal(drawn[:40], image)
    colours = {tuple(pixel) for pixel in drawn[40:].reshape(-1, 3)}
    assert {label_colour(0), label_colour(1)} <= colours
