"""Overlays pixel for pixel, and curves by what they plot and what they leave on the disk."""

import json
import subprocess
import sys
from pathlib import Path

import matplotlib.axes
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from evaluation.overlays import (
    CAPTION_HEIGHT,
    GAP,
    GAP_COLOUR,
    MIN_PANEL_WIDTH,
    overlay,
    overlay_name,
    plot_curves,
    save_overlay,
)
from utils.errors import UserError

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
    assert overlay_name(image, label) == expected


@pytest.fixture
def plotted(monkeypatch):
    """Return {label: (epochs, values)} of every curve drawn."""
    curves = {}
    plain = matplotlib.axes.Axes.plot

    def plot(axis, epochs, values, **options):
        curves[options["label"]] = (list(epochs), list(values))
        return plain(axis, epochs, values, **options)

    monkeypatch.setattr(matplotlib.axes.Axes, "plot", plot)
    return curves


def write_log(path, records, rest=""):
    path.write_text("".join(json.dumps(record) + "\n" for record in records) + rest)
    return path


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


def test_curves_hold_every_finished_epoch_and_no_half_line(tmp_path, plotted):
    records = [
        {"epoch": e, "loss": {"total": 2.0 - e, "dice": 0.5}, "val": {"dice": 0.1 * e}, "lr": 1e-4, "seconds": 3.0}
        for e in (1, 2)
    ]
    log = write_log(tmp_path / "metrics.jsonl", records, '{"epoch": 3, "loss": {"total": 9')
    plot_curves(log, tmp_path / "new" / "curves.png")
    assert plotted == {
        "loss/total": ([1, 2], [1.0, 0.0]),
        "loss/dice": ([1, 2], [0.5, 0.5]),
        "val/dice": ([1, 2], [0.1, 0.2]),
        "lr": ([1, 2], [1e-4, 1e-4]),
    }
    with Image.open(tmp_path / "new" / "curves.png") as file:
        assert file.format == "PNG"
        assert file.size == (3 * 528, 396)
        assert len(np.unique(np.asarray(file.convert("RGB")).reshape(-1, 3), axis=0)) > 10
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["curves.png"]


def test_panels_without_a_number_are_left_out(tmp_path, plotted):
    log = write_log(tmp_path / "m.jsonl", [{"epoch": 1, "val_dice": 0.5, "dice_std": 0.1, "color": 3, "palr": 4}])
    plot_curves(log, tmp_path / "c.png")
    assert plotted == {"val_dice": ([1], [0.5])}
    with Image.open(tmp_path / "c.png") as file:
        assert file.size == (528, 396)


@pytest.mark.parametrize("values", [[0.0, 0.0], [-1.0, 2.0], [1e-6, 1.0], [0.0, 1e3], [1e-30, 1e30]])
def test_losses_of_any_scale_are_drawn(tmp_path, plotted, values):
    log = write_log(tmp_path / "m.jsonl", [{"epoch": i, "loss": value} for i, value in enumerate(values)])
    plot_curves(log, tmp_path / "c.png")
    assert plotted["loss"][1] == values
    assert (tmp_path / "c.png").is_file()


@pytest.mark.parametrize("text", ["", '{"epoch": 1, "seconds": 3.0}\n', '{"epoch": 1, "loss": 0.5'])
def test_nothing_to_draw_is_said_and_writes_nothing(tmp_path, text):
    log = tmp_path / "metrics.jsonl"
    log.write_text(text)
    with pytest.raises(UserError) as caught:
        plot_curves(log, tmp_path / "curves.png")
    assert str(log) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_curves_of_a_missing_log_name_it(tmp_path):
    with pytest.raises(UserError, match=r"none\.jsonl: cannot be read"):
        plot_curves(tmp_path / "none.jsonl", tmp_path / "curves.png")


def test_curves_that_fail_midway_leave_the_old_ones(tmp_path, monkeypatch):
    log = write_log(tmp_path / "metrics.jsonl", [{"epoch": 1, "loss": 0.5}])
    out = tmp_path / "curves.png"
    out.write_bytes(b"old")

    def half(self, target, *_, **__):
        with open(target, "wb") as file:
            file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(FigureCanvasAgg, "print_png", half)
    with pytest.raises(OSError, match="disk full"):
        plot_curves(log, out)
    assert out.read_bytes() == b"old"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["curves.png", "metrics.jsonl"]


@pytest.mark.parametrize(
    ("losses", "scale"),
    [
        ({"a": 1.0, "b": 0.9}, "linear"),
        ({"a": 1.0, "b": 0.001, "c": 0.0}, "log"),
        ({"a": 1.0, "b": 0.001, "c": -1.0}, "linear"),
    ],
)
def test_axes_suit_what_they_show(tmp_path, monkeypatch, losses, scale):
    figures = []
    plain = Figure.subplots
    monkeypatch.setattr(Figure, "subplots", lambda self, *a, **k: figures.append(self) or plain(self, *a, **k))
    log = write_log(tmp_path / "m.jsonl", [{"epoch": 1, "loss": losses, "val": {"dice": 0.4}}])
    plot_curves(log, tmp_path / "c.png")
    loss, score = figures[0].axes
    assert loss.get_yscale() == scale
    assert score.get_ylim() == (0.0, 1.0)


def test_matplotlib_is_loaded_for_curves_alone():
    code = "import sys, evaluation.overlays; sys.exit('matplotlib' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
