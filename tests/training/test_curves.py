"""Training curves by what they plot and what they leave on the disk."""

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

from training.curves import plot_curves
from utils.errors import UserError


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
        assert file.size == (3 * 528, 440)
        assert len(np.unique(np.asarray(file.convert("RGB")).reshape(-1, 3), axis=0)) > 10
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["curves.png"]


def test_panels_without_a_number_are_left_out(tmp_path, plotted):
    log = write_log(tmp_path / "m.jsonl", [{"epoch": 1, "val": {"dice": 0.5}, "color": 3, "palr": 4}])
    plot_curves(log, tmp_path / "c.png")
    assert plotted == {"val/dice": ([1], [0.5])}
    with Image.open(tmp_path / "c.png") as file:
        assert file.size == (528, 440)


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
    code = "import sys, training.curves; sys.exit('matplotlib' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_no_legend_lies_on_a_curve_and_test_images_are_not_called_validation(tmp_path, monkeypatch):
    figures = []
    plain = Figure.subplots
    monkeypatch.setattr(Figure, "subplots", lambda self, *a, **k: figures.append(self) or plain(self, *a, **k))
    losses = dict.fromkeys(("total", "focal", "dice", "regularization"), 0.5)
    records = [{"epoch": e, "loss": losses, "train": {"dice": 0.0}, "val": {"dice": 0.1}, "lr": 1e-4} for e in (1, 2)]
    plot_curves(write_log(tmp_path / "m.jsonl", records), tmp_path / "c.png", "test")
    (figure,) = figures
    for axis in figure.axes[:2]:
        assert axis.get_legend().get_window_extent().y1 <= axis.get_window_extent().y0
    names = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert names == ["train/dice", "test images/dice"]
    assert figure._suptitle.get_text() == "epoch chosen on test images"
