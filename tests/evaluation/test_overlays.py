"""Overlays pixel for pixel."""

import numpy as np
import pytest
from PIL import Image

from datasets.names import output_name
from evaluation.overlays import (
    CAPTION_HEIGHT,
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    GAP,
    GAP_COLOUR,
    MIN_PANEL_WIDTH,
    TRUE_POSITIVE,
    overlay,
    save_overlay,
)

H, W = 5, 7


@pytest.fixture
def picture():
    """A colour image whose masks hit at (1, 1), miss at (2, 3) and see a false vessel at (4, 6)."""
    image = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
    truth, pred = np.zeros((H, W), bool), np.zeros((H, W), bool)
    truth[1, 1] = pred[1, 1] = truth[2, 3] = pred[4, 6] = True
    return image, truth, pred


@pytest.mark.parametrize(
    ("image", "label", "expected"),
    [
        ("a.b.png", "Vessel", "a.b_Vessel.png"),
        ("left/eye.png", "Vessel", "left/eye_Vessel.png"),
        ("right/eye.png", "Vessel", "right/eye_Vessel.png"),
        ("eye.png", "artery/vein", "eye_artery_vein.png"),
        ("../eye.png", "Vessel", "eye_Vessel.png"),
        ("/data/eye.png", "Vessel", "data/eye_Vessel.png"),
    ],
)
def test_overlays_lie_in_the_subfolders_of_their_images(image, label, expected):
    assert output_name(image, label) == expected


def panels_of(picture):
    drawn = overlay(*picture)
    assert drawn.shape == (H, 4 * W + 3 * GAP, 3)
    assert drawn.dtype == np.uint8
    return [drawn[:, left : left + W] for left in range(0, 4 * W + 3 * GAP, W + GAP)]


def test_the_panels_are_image_truth_prediction(picture):
    image, truth, pred = picture
    panels = panels_of(picture)
    assert (panels[0] == image).all()
    for panel, mask in zip(panels[1:3], (truth, pred), strict=True):
        assert (panel == np.where(mask[..., None], 255, 0)).all()


def test_the_errors_are_white_red_and_blue_on_dimmed_grey(picture):
    image, truth, pred = picture
    errors = panels_of(picture)[3]
    assert tuple(errors[1, 1]) == (255, 255, 255)
    red, blue = errors[2, 3].astype(int), errors[4, 6].astype(int)
    assert red[0] > 200
    assert red[0] > 2 * max(red[1], red[2])
    assert blue[2] > 200
    assert blue[2] > 1.5 * max(blue[0], blue[1])
    rest = ~(truth | pred)
    grey = (image.astype(float).mean(axis=2) * 0.4).astype(np.uint8)
    assert (errors[rest] == grey[rest][:, None]).all()
    # White stays the vessels' own: the brightest ground is far below it.
    assert errors[rest].max() <= 102


def test_the_gaps_are_grey_columns(picture):
    drawn = overlay(*picture)
    for left in (W, 2 * W + GAP, 3 * W + 2 * GAP):
        assert (drawn[:, left : left + GAP] == GAP_COLOUR).all()


def test_the_overlay_leaves_its_image_alone(picture):
    before = picture[0].copy()
    overlay(*picture)
    assert (picture[0] == before).all()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda image, truth, pred: (image / 255.0, truth, pred),
        lambda image, truth, pred: (image[..., 0], truth, pred),
        lambda image, truth, pred: (np.dstack([image, image[..., :1]]), truth, pred),
        lambda image, truth, pred: (image, truth.astype(np.uint8), pred),
        lambda image, truth, pred: (image, truth, pred.T),
    ],
)
def test_other_shapes_and_dtypes_are_refused(picture, spoil):
    with pytest.raises(ValueError, match="expected"):
        overlay(*spoil(*picture))


def test_a_small_overlay_is_enlarged_by_a_whole_factor(tmp_path, picture):
    path = tmp_path / "deep" / "x.png"
    save_overlay(path, *picture, name="x.png", label="Vein", dice=0.5)
    factor = -(-MIN_PANEL_WIDTH // W)
    with Image.open(path) as file:
        assert file.format == "PNG"
        assert file.size == (4 * W * factor + 3 * GAP, H * factor + CAPTION_HEIGHT)
        drawn = np.asarray(file)
    first = drawn[CAPTION_HEIGHT:, : W * factor]
    assert (first == picture[0].repeat(factor, axis=0).repeat(factor, axis=1)).all()
    assert [file.name for file in path.parent.iterdir()] == ["x.png"]


def test_a_large_overlay_keeps_its_size_and_a_long_name_its_panel(tmp_path):
    image = np.zeros((40, 300, 3), np.uint8)
    mask = np.zeros((40, 300), bool)
    save_overlay(tmp_path / "a.png", image, mask, mask, name="n" * 500, label="l" * 500, dice=1.0)
    with Image.open(tmp_path / "a.png") as file:
        assert file.size == (4 * 300 + 3 * GAP, 40 + CAPTION_HEIGHT)
        caption = np.asarray(file)[:CAPTION_HEIGHT]
    for left in (300, 604):
        assert not caption[:, left : left + GAP].any()
    assert caption[:, :300].any()
    assert caption[:, 304:604].any()


def test_captions_tell_the_dice(tmp_path, picture):
    drawn = []
    for value in (0.25, 0.5):
        save_overlay(tmp_path / "a.png", *picture, name="x", label="y", dice=value)
        with Image.open(tmp_path / "a.png") as file:
            drawn.append(np.asarray(file))
    assert (drawn[0][:CAPTION_HEIGHT] != drawn[1][:CAPTION_HEIGHT]).any()
    assert (drawn[0][CAPTION_HEIGHT:] == drawn[1][CAPTION_HEIGHT:]).all()


def test_names_with_line_breaks_are_drawn(tmp_path, picture):
    save_overlay(tmp_path / "a.png", *picture, name="x\ny", label="left\nartery", dice=0.5)
    assert (tmp_path / "a.png").is_file()


def test_an_overlay_that_fails_midway_leaves_the_old_one(tmp_path, picture, monkeypatch):
    path = tmp_path / "a.png"
    save_overlay(path, *picture, name="x", label="y", dice=0.5)
    before = path.read_bytes()

    def half(self, target, **_):
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(OSError, match="disk full"):
        save_overlay(path, *picture, name="x", label="y", dice=0.9)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_right_missed_and_false_differ_in_a_print_without_colours():
    colours = [[(0, 0, 0), FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_POSITIVE]]
    greys = np.asarray(Image.fromarray(np.array(colours, np.uint8)).convert("L"), int)[0]
    assert (np.diff(greys) > 50).all()
