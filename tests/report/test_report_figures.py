"""The figures: what is drawn, from what, and that the files are fit for print."""

import shutil

import matplotlib.axes
import numpy as np
import pytest
import torch
from PIL import Image

from adapters import adapted_layers
from main import main
from model import load_trained
from report import figure_grid
from report.comparison import SectionTests
from report.drawing import Drawn
from report.figure_curves import draw_curves
from report.figure_grid import draw_grid, prediction_panel
from report.figure_ranks import draw_rank_scatter
from report.figure_spectra import draw_spectra, spectra_of
from report.gather import gather
from report.table import Section, build_table


def table_of(folder, weights="last"):
    return build_table(gather(folder).runs, weights, "img_size")


def check_files(picture):
    """PNG of a printable size; PDF with its fonts whole (Type 42 shows as embedded TrueType, FontFile2)."""
    pdf = picture.png.with_suffix(".pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    with Image.open(picture.png) as image:
        assert 400 < image.width <= 7.3 * 220
    assert picture.alt
    assert picture.caption


@pytest.fixture(scope="module")
def workspace(make_workspace, tmp_path_factory):
    """SALT and LoRA trained on the small set, in runs/; left as they are."""
    workspace = make_workspace(tmp_path_factory.mktemp("trained"))
    for strategy in ("salt", "lora"):
        arguments = workspace.train_arguments(f"runs/{strategy}/m.safetensors", "--training_strategy", strategy)
        assert main(arguments) == 0
    return workspace


@pytest.fixture
def trained(workspace, tmp_path):
    """A copy of those runs, to do with as one likes."""
    original, copy = workspace.folder / "runs", tmp_path / "runs"
    shutil.copytree(original, copy)
    for results in copy.rglob("results.json"):  # they name their weights
        results.write_text(results.read_text().replace(str(original), str(copy)))
    return copy


def test_a_prediction_has_the_colours_of_the_overlays():
    truth = np.array([[True, True, False, False]])
    prediction = np.array([[True, False, True, False]])
    assert prediction_panel(prediction, truth).tolist() == [[[255] * 3, [215, 40, 40], [80, 160, 255], [0] * 3]]


def test_a_run_keeps_its_predictions_and_the_grid_shows_them(trained, workspace, tmp_path, monkeypatch):
    kept = sorted((trained / "salt" / "predictions").iterdir())
    assert [path.name for path in kept] == ["test0_Bar.png", "test1_Bar.png"]
    mask = np.asarray(Image.open(kept[0]))
    assert mask.shape == (48, 40)
    assert set(np.unique(mask)) <= {0, 255}
    scores = gather(trained).runs[1].images["last"]
    truth = np.asarray(Image.open(workspace.data / "masks" / "test0.png")) > 0
    dice = 2 * (truth & (mask > 0)).sum() / (truth.sum() + (mask > 0).sum())
    assert scores[("test0.png", "Bar")]["dice_native"] == pytest.approx(dice, abs=1e-6)

    shown = []
    monkeypatch.setattr(matplotlib.axes.Axes, "imshow", lambda axis, panel, **_: shown.append(panel))
    drawn = draw_grid(table_of(trained), tmp_path)
    assert drawn.notes == []
    (picture,) = drawn.pictures
    check_files(picture)
    assert len(shown) == 4  # image, truth, LoRA, SALT
    assert all(panel.shape == (48, 40, 3) for panel in shown)
    # The sample is the lower median of SALT's two, and the panel is its prediction.
    median = min(scores, key=lambda key: scores[key]["dice_native"])
    prediction = np.asarray(Image.open(trained / "salt" / "predictions" / f"{median[0][:-4]}_Bar.png")) > 0
    truth = np.asarray(Image.open(workspace.data / "masks" / median[0])) > 0
    assert (shown[1][..., 0] > 0).tolist() == truth.tolist()
    assert shown[3].tolist() == prediction_panel(prediction, truth).tolist()
    assert median[0] in picture.alt


def test_the_grid_leaves_out_what_is_gone_and_says_so(trained, workspace, tmp_path):
    split = workspace.data / "data_split.csv"
    split.rename(workspace.data / "gone.csv")
    try:
        drawn = draw_grid(table_of(trained), tmp_path)
        of_best = draw_grid(table_of(trained, "best_val"), tmp_path)
    finally:
        (workspace.data / "gone.csv").rename(split)
    assert drawn.pictures == []
    assert len(drawn.notes) == 1
    assert drawn.notes[0].startswith("Fig. 3, set left out: ")
    assert "data_split.csv" in drawn.notes[0]
    assert "weights last alone" in of_best.notes[0]


def test_a_missing_prediction_is_named_and_the_others_are_drawn(trained, tmp_path):
    for path in (trained / "lora" / "predictions").iterdir():
        path.unlink()
    drawn = draw_grid(table_of(trained), tmp_path)
    assert len(drawn.pictures) == 1
    assert len(drawn.notes) == 1
    assert "LoRA 2" in drawn.notes[0]


def test_a_long_image_name_keeps_its_beginning(tmp_path, monkeypatch):
    texts = []
    plain = matplotlib.axes.Axes.set_xlabel
    monkeypatch.setattr(
        matplotlib.axes.Axes, "set_xlabel", lambda axis, text, **_: (texts.append(text), plain(axis, text))
    )
    truth = np.ones((8, 8), bool)
    row = figure_grid.GridRow("set", (f"image_{'0' * 40}.png", "Bar"), np.zeros((8, 8, 3), np.uint8), truth, {})
    figure_grid._draw([row], [], Section("s", (), (), "", (), SectionTests()), tmp_path, "long", Drawn())
    assert texts[0].startswith("image_000")
    assert texts[0].endswith("...")
    assert texts[1] == "Bar"


def test_many_methods_make_several_figures(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(figure_grid, "METHODS_PER_FIGURE", 1)
    drawn = draw_grid(table_of(trained), tmp_path)
    assert [picture.name for picture in drawn.pictures] == ["qualitative_1", "qualitative_2"]


def test_spectra_are_those_of_the_merged_weights(trained, tmp_path):
    weights = trained / "salt" / "m.safetensors"
    spectra = spectra_of(weights)
    model, _ = load_trained(weights)
    layers = dict(adapted_layers(model))
    assert [s.layer for s in spectra] == ["blocks.0.attn.qkv", "blocks.2.attn.qkv", "blocks.3.attn.qkv"]
    for spectrum in spectra:
        layer = layers[f"image_encoder.{spectrum.layer}"]
        with torch.no_grad():
            merged = layer.merged_weight()
            base = (layer.U * layer.s) @ layer.Vh
        assert spectrum.before == pytest.approx(layer.s.numpy())
        assert spectrum.after == pytest.approx(np.linalg.svd(merged.numpy(), compute_uv=False), abs=1e-4)
        assert spectrum.scaled == pytest.approx((layer.alpha * layer.s[:8] + layer.beta).detach().numpy(), abs=1e-6)
        assert spectrum.change == pytest.approx(float((merged - base).norm() / base.norm()), rel=1e-4)
        assert spectrum.change > 0
    drawn = draw_spectra(table_of(trained), tmp_path)
    assert drawn.notes == []
    (picture,) = drawn.pictures
    check_files(picture)


def test_spectra_without_their_weights_are_left_out_and_it_is_said(trained, tmp_path):
    (trained / "salt" / "m.safetensors").unlink()
    drawn = draw_spectra(table_of(trained), tmp_path)
    assert drawn.pictures == []
    assert "left out" in drawn.notes[0]
    assert "m.safetensors" in drawn.notes[0]


def test_learning_curves_hold_every_trained_row(trained, tmp_path, monkeypatch):
    lines = []
    plain = matplotlib.axes.Axes.plot

    def plot(axis, epochs, values, **options):
        lines.append((options.get("label"), list(epochs)))
        return plain(axis, epochs, values, **options)

    monkeypatch.setattr(matplotlib.axes.Axes, "plot", plot)
    drawn = draw_curves(table_of(trained), tmp_path)
    assert drawn.notes == []
    (picture,) = drawn.pictures
    assert picture.name == "curves_set"
    check_files(picture)
    assert sorted(lines) == sorted(
        [("nano SAM, LoRA 2 (random base weights)", [1, 2])] * 3
        + [("nano SAM, SALT 2 (top 8, neck 4, random base weights)", [1, 2])] * 3
    )


def test_a_run_without_its_log_is_said_to_have_no_curve(maker, tmp_path):
    folder = maker.run("salt_256")
    drawn = draw_curves(table_of(maker.root), tmp_path)
    assert drawn.pictures == []
    assert drawn.notes == [f"Learning curves: 1 runs have no metrics.jsonl, such as {folder}"]


def test_the_scatter_has_a_circle_a_combination_with_area_as_percent(maker, tmp_path, monkeypatch):
    percents = {(700, 4): 0.43, (700, 256): 1.11, (200, 4): 0.49, (200, 256): 5.84}
    for i, ((svd, lora), percent) in enumerate(percents.items()):
        ranks = {"svd_rank_linear": svd, "svd_rank_conv2d": 200, "r_lora": lora}
        maker.run("x", folder=f"{svd}_{lora}", dice=[0.7 + i / 100] * 2, ranks=ranks, percent=percent)
    maker.run("lora_4")
    circles = []
    plain = matplotlib.axes.Axes.scatter

    def scatter(axis, x, y, **options):
        circles.append((x[0], y[0], options["s"]))
        return plain(axis, x, y, **options)

    monkeypatch.setattr(matplotlib.axes.Axes, "scatter", scatter)
    drawn = draw_rank_scatter(table_of(maker.root), tmp_path)
    (picture,) = drawn.pictures
    check_files(picture)
    assert [y for _, y, _ in circles] == pytest.approx([0.70, 0.71, 0.72, 0.73])
    assert [x for x, _, _ in circles] == sorted(x for x, _, _ in circles)
    areas = [area for _, _, area in circles]
    assert [area / areas[-1] for area in areas] == pytest.approx([p / 5.84 for p in percents.values()])
    assert "top rank 200, LoRA rank 256: Dice 0.730, 5.84% trained" in picture.alt


def test_one_combination_makes_no_scatter(maker, tmp_path):
    maker.run("salt_256")
    maker.run("salt_256", dataset="ROSE")
    maker.run("salt_4", dataset="DIAS")
    drawn = draw_rank_scatter(table_of(maker.root), tmp_path)
    assert drawn.pictures == []
    assert len(drawn.notes) == 1
