"""`score`: any folder of masks against the true ones, with the metrics and files of `test`."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from evaluation.results import read_per_image
from main import main

RNG = np.random.default_rng(4)


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def score(*arguments):
    return main(["score", *map(str, arguments)])


def refused(capsys, *arguments, status=1):
    assert score(*arguments) == status
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


@pytest.fixture
def masks(tmp_path):
    """Three true masks of 0/255 and another tool's predictions of 0/1, in nested folders, with other names."""
    truth, predicted = {}, {}
    for i in range(3):
        truth[f"{i}.png"], predicted[f"{i}.png"] = (RNG.random((12, 15)) < 0.4 for _ in range(2))
        save(tmp_path / "truth" / "set" / f"{i}.png", truth[f"{i}.png"] * np.uint8(255))
        save(tmp_path / "tool" / f"{i}_seg.png", predicted[f"{i}.png"].astype(np.uint8))
    return tmp_path, truth, predicted


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_another_tools_masks(masks, capsys):
    folder, truth, predicted = masks
    assert score("--predictions", folder / "tool", "--truth", folder / "truth") == 0
    rows = read_per_image(folder / "tool_scores")["masks"]
    expected = {name: dice(truth[name], predicted[name]) for name in truth}
    for name, value in expected.items():
        assert rows[f"set/{name}", "Foreground"]["dice_native"] == pytest.approx(value, abs=1e-6)
    results = json.loads((folder / "tool_scores" / "results.json").read_text())
    assert results["native"]["dice"]["mean"] == pytest.approx(np.mean(list(expected.values())))
    assert (results["native"]["n"], results["method"], results["dataset"]) == (3, "tool", "truth")
    printed = capsys.readouterr().out
    assert f"Dice {np.mean(list(expected.values())):.4f}" in printed
    assert "at the images' own size" in printed
    assert "model's image size" not in printed


def test_predictions_of_this_project_score_what_test_says(workspace):
    assert main(workspace.train_arguments("run/m.safetensors", "--set", "training.num_epochs=1")) == 0
    checkpoint, masks = ["--checkpoint", str(workspace.folder / "run")], workspace.folder / "masks"
    metrics = ["--metrics", "cldice", "precision"]
    assert main(["test", *checkpoint, *metrics, "--device", "cpu"]) == 0
    truth = workspace.folder / "truth"
    truth.mkdir()
    for path in (workspace.data / "masks").glob("test*"):
        path.rename(truth / path.name)
    images = [str(path) for path in sorted((workspace.data / "images").glob("test*"))]
    assert main(["predict", *checkpoint, "--images", *images, "--output", str(masks), "--device", "cpu"]) == 0
    assert score("--predictions", masks, "--truth", truth, "--output", workspace.folder / "s", *metrics) == 0
    scored = json.loads((workspace.folder / "s" / "results.json").read_text())["native"]
    before = json.loads((workspace.folder / "run" / "results.json").read_text())["last"]["native"]
    assert scored["dice"] == before["dice"]
    assert scored["hd95"] == before["hd95"]
    tested = json.loads((workspace.folder / "run" / "m_set_test" / "results.json").read_text())["native"]
    assert set(scored["others"]) == {"cldice", "precision"}
    assert scored["others"] == tested["others"]


def test_several_labels_by_value_and_by_name(tmp_path, capsys):
    labels = RNG.integers(0, 3, (2, 9, 9)).astype(np.uint8) * 2
    save(tmp_path / "truth" / "a.png", labels[0])
    save(tmp_path / "tool" / "a.png", labels[1])
    assert score("--predictions", tmp_path / "tool", "--truth", tmp_path / "truth") == 0
    with (tmp_path / "tool_scores" / "per_image.csv").open() as file:
        rows = {row["label"]: float(row["dice_native"]) for row in csv.DictReader(file)}
    expected = {f"Label {value}": dice(labels[0] == value, labels[1] == value) for value in (2, 4)}
    assert rows == pytest.approx(expected, abs=1e-6)
    capsys.readouterr()
    classes = ["--classes", "vein=4", "artery=2"]
    assert score("--predictions", tmp_path / "tool", "--truth", tmp_path / "truth", *classes) == 0
    assert f"vein: Dice {expected['Label 4']:.4f}" in capsys.readouterr().out


def test_a_threshold_is_for_one_label(tmp_path, capsys):
    labels = RNG.integers(0, 3, (9, 9)).astype(np.uint8)
    save(tmp_path / "truth" / "a.png", labels)
    save(tmp_path / "tool" / "a.png", labels * np.uint8(100))
    arguments = ["--predictions", tmp_path / "tool", "--truth", tmp_path / "truth", "--threshold", 0.3]
    assert "--threshold: is for true masks of 0 and 1, or 0 and 255" in refused(capsys, *arguments, status=2)
    assert not (tmp_path / "tool_scores").exists()


def test_probabilities_need_a_threshold(masks, capsys):
    folder, truth, _ = masks
    grey = RNG.integers(0, 256, (12, 15)).astype(np.uint8)
    for i in range(3):
        save(folder / "grey" / f"{i}.png", grey)
    error = refused(capsys, "--predictions", folder / "grey", "--truth", folder / "truth")
    assert "0.png: holds " in error
    assert "which no true mask does; give --classes, or --threshold for probabilities" in error
    assert score("--predictions", folder / "grey", "--truth", folder / "truth", "--threshold", 0.3) == 0
    rows = read_per_image(folder / "grey_scores")["masks"]
    assert rows["set/0.png", "Foreground"]["dice"] == pytest.approx(dice(truth["0.png"], grey > 76.5), abs=1e-6)


@pytest.mark.parametrize("mode", ["1", "I;16"])
def test_probabilities_of_any_bit_depth(masks, mode):
    """A file of 1 bit holds 0 and 1, which are probabilities of 0 and 1."""
    folder, truth, predicted = masks
    for name, mask in predicted.items():
        picture = Image.fromarray(mask) if mode == "1" else Image.fromarray(mask.astype(np.uint16) * 65535)
        assert picture.mode == mode
        (folder / "p").mkdir(exist_ok=True)
        picture.save(folder / "p" / name)
    assert score("--predictions", folder / "p", "--truth", folder / "truth", "--threshold", 0.5) == 0
    rows = read_per_image(folder / "p_scores")["masks"]
    for name in truth:
        expected = dice(truth[name], predicted[name])
        assert rows[f"set/{name}", "Foreground"]["dice_native"] == pytest.approx(expected, abs=1e-6)


def test_what_cannot_be_scored_is_named(masks, capsys):
    folder, _, _ = masks
    arguments = ["--predictions", folder / "tool", "--truth", folder / "truth"]
    error = refused(capsys, *arguments, "--pattern", "{id}={id}_other")
    assert "3 of 3 masks in" in error
    save(folder / "tool" / "2_seg.png", np.zeros((5, 5), np.uint8))
    assert "2_seg.png: 5 x 5 pixels, but the true mask 2.png is 15 x 12 (width x height)" in refused(capsys, *arguments)
    (folder / "tool" / "2_seg.png").unlink()
    assert "tool: 1 of 3 masks in" in (error := refused(capsys, *arguments))
    assert "have no prediction by {id}={id}_seg (2.png)" in error
    assert "nowhere: no such folder" in refused(capsys, *arguments[:2], "--truth", folder / "nowhere")
    assert not (folder / "tool_scores").exists()
