"""Thresholds: two at once, the best on validation images, and what a run, its weights and predict make of them."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from evaluation.metrics import dice
from evaluation.threshold import CANDIDATES, Threshold, best_threshold, dice_by_threshold, logit
from main import main
from model import load_model, load_trained


def field(seed, shape=(40, 50)):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(ndimage.gaussian_filter(rng.standard_normal(shape), 2).astype(np.float32) * 12)


@pytest.mark.parametrize("seed", range(3))
def test_hysteresis_keeps_what_is_connected_to_the_high_threshold(seed):
    logits = field(seed)
    probability = torch.sigmoid(logits).numpy()
    pieces, _ = ndimage.label(probability > 0.4)  # pixels that share a side
    kept = set(np.unique(pieces[probability > 0.8])) - {0}
    found = Threshold(0.8, 0.4).mask(logits).numpy()
    assert np.array_equal(found, np.isin(pieces, list(kept)))
    assert (probability > 0.8).sum() < found.sum() < (probability > 0.4).sum()
    both = Threshold(0.8, 0.4).mask(torch.stack([logits, -logits]))
    assert np.array_equal(both[0].numpy(), found)


@pytest.mark.parametrize("seed", range(3))
def test_dice_at_every_threshold_is_the_metric_s(seed):
    logits, mask = field(seed), field(seed + 10) > 1
    expected = [dice(Threshold(candidate).mask(logits), mask) for candidate in CANDIDATES]
    assert dice_by_threshold(logits, mask.float()) == pytest.approx(expected)


def test_dice_at_every_threshold_of_empty_masks():
    none, low = torch.zeros(4, 5), torch.full((4, 5), logit(0.3))
    curve = dice_by_threshold(low, none)
    assert [value for c, value in zip(CANDIDATES, curve, strict=True) if c < 0.3] == [0.0] * 25
    assert set(curve[26:]) == {1.0}
    assert not dice_by_threshold(torch.full((4, 5), -9.0), torch.ones(4, 5)).any()


def test_the_best_threshold_is_that_of_the_mean_and_of_equals_the_nearest_to_a_half():
    flat = np.full(len(CANDIDATES), 0.5)
    assert best_threshold([flat]) == 0.5
    one, other = flat.copy(), flat.copy()
    one[[2, 10]], other[[2, 80]] = 0.7, 0.65
    assert best_threshold([one, other]) == CANDIDATES[2]
    tied = flat.copy()
    tied[[5, 60]] = 0.9
    assert best_threshold([tied]) == CANDIDATES[60]


def train(workspace, *settings, strategy="lora"):
    arguments = workspace.train_arguments("run/model.safetensors", "--training_strategy", strategy)
    return main([*arguments, "--set", *settings])


def test_a_run_chooses_its_threshold_on_validation_images_and_predict_uses_it(workspace, no_pictures, capsys):
    assert train(workspace, "evaluation.threshold=val") == 0
    run = workspace.folder / "run"
    results = json.loads((run / "results.json").read_text())
    for weights, name in (("last", "model"), ("best_val", "best_val")):
        path = run / f"{name}.safetensors"
        chosen = results[weights]["threshold"]
        _, config = load_trained(path)
        assert config.evaluation.threshold == chosen
        predictor = load_model(path)
        images = [np.asarray(Image.open(workspace.data / "images" / f"val{i}.png")) for i in range(2)]
        masks = [np.asarray(Image.open(workspace.data / "masks" / f"val{i}.png")) > 0 for i in range(2)]
        # At the images' own size, so near the best rather than the best.
        scores = {
            t: np.mean([dice(predictor.predict(i, "Bar", t), m) for i, m in zip(images, masks, strict=True)])
            for t in (*CANDIDATES[::5], chosen)
        }
        assert scores[chosen] > max(scores.values()) - 0.05
        assert scores[chosen] > scores[0.95]
        assert np.array_equal(predictor.predict(images[0], "Bar"), predictor.predict(images[0], "Bar", chosen))
    path = run / "best_val.safetensors"
    for output, more in (("own", []), ("given", ["--threshold", str(chosen)]), ("half", ["--threshold", "0.99"])):
        arguments = [
            "--images",
            str(workspace.data / "images" / "test0.png"),
            "--output",
            str(workspace.folder / output),
        ]
        assert main(["predict", "--checkpoint", str(path), *arguments, "--device", "cpu", *more]) == 0
    own, given, other = (
        np.asarray(Image.open(workspace.folder / name / "test0.png")) for name in ("own", "given", "half")
    )
    assert np.array_equal(own, given)
    assert not np.array_equal(own, other)
    assert main(["test", "--checkpoint", str(path), "--device", "cpu"]) == 0
    [again] = run.glob("best_val_*/results.json")
    assert json.loads(again.read_text())["threshold"] == chosen
    assert json.loads(again.read_text())["native"] == results["best_val"]["native"]


def test_hysteresis_from_config_and_command_line(workspace, no_pictures, capsys):
    assert train(workspace, "evaluation.hysteresis={low: 0.3, high: 0.45}", "training.num_epochs=1") == 0
    results = json.loads((workspace.folder / "run" / "results.json").read_text())["last"]
    assert (results["threshold"], results["low"]) == (0.45, 0.3)
    image, path = workspace.data / "images" / "test0.png", workspace.folder / "run" / "model.safetensors"
    arguments = ["predict", "--checkpoint", str(path), "--images", str(image), "--device", "cpu", "--output"]
    found = []
    for name, more in (("own", []), ("given", ["--hysteresis", "0.3", "0.45"])):
        assert main([*arguments, str(workspace.folder / name), *more]) == 0
        found.append(np.asarray(Image.open(workspace.folder / name / "test0.png")))
    assert np.array_equal(*found)
    assert np.array_equal(found[0] > 0, load_model(path).predict(np.asarray(Image.open(image)), "Bar"))
    capsys.readouterr()
    for wrong in (["0.6", "0.3"], ["0.3", "0.6", "--threshold", "0.5"]):
        assert main([*arguments, str(workspace.folder / "x"), "--hysteresis", *wrong]) == 2
        assert "--hysteresis takes LOW below HIGH, and the place of --threshold" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "strategy", "message"),
    [
        (["evaluation.threshold=val", "data.val=test"], "lora", "a threshold chosen on test images would falsify"),
        (["evaluation.threshold=val"], "none", "strategy none trains nothing; give a number"),
        (["evaluation.threshold=1"], "lora", "must be a number between 0 and 1, or val"),
        (["evaluation.threshold=best"], "lora", "must be a number between 0 and 1, or val"),
        (["evaluation.threshold=true"], "lora", "must be a number between 0 and 1, or val"),
        (["evaluation.hysteresis={low: 0.5, high: 0.4}"], "lora", "must be greater than low = 0.5"),
        (["evaluation.hysteresis={low: 0.3, high: 0.4}", "evaluation.threshold=0.6"], "lora", "set one of them"),
    ],
)
def test_thresholds_that_are_none_are_refused(workspace, capsys, settings, strategy, message):
    assert train(workspace, *settings, strategy=strategy) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
