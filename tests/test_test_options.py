"""`test` with --tile, --tta, --threshold and several checkpoints scores the masks that `predict` writes with them."""

import json

import pytest
import torch
from PIL import Image

from data_transforms.data_transforms import to_native
from datasets.data import GeneralDataset
from main import main
from model import load_trained
from test import _reduced, predictions


@pytest.fixture(scope="module")
def trained(make_workspace, tmp_path_factory):
    """Two runs of one epoch on images larger than the model's size, and the masks of the test split by themselves."""
    workspace = make_workspace(tmp_path_factory.mktemp("trained"))
    for name in ("a", "b"):
        more = ["--set", "training.num_epochs=1", "training.lr=1e-2", "--seed", str(ord(name))]
        assert main(workspace.train_arguments(f"{name}/m.safetensors", *more)) == 0
    for path in (workspace.data / "masks").glob("test*"):
        target = workspace.folder / "truth" / path.name
        target.parent.mkdir(exist_ok=True)
        Image.open(path).save(target)
    return workspace


def results_in(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize(
    ("runs", "options", "folder", "used"),
    [
        ("a", ["--tile"], "m_set_test_tile", {"tile": True}),
        ("a", ["--tta", "flips"], "m_set_test_flips", {"flips": True}),
        ("a", ["--threshold", "0.45"], "m_set_test_threshold_0.45", {"threshold": 0.45}),
        ("ab", [], "m_set_test_mean_of_2", {}),
        (
            "ab",
            ["--tile", "--threshold", "0.48"],
            "m_set_test_tile_threshold_0.48_mean_of_2",
            {"tile": True, "threshold": 0.48},
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_predict_writes_is_what_test_scores(trained, tmp_path, runs, options, folder, used):
    checkpoints = ["--checkpoint", *(str(trained.folder / run) for run in runs)]
    assert main(["test", *checkpoints, "--device", "cpu", *options]) == 0
    tested = results_in(trained.folder / "a" / folder)
    assert tested["prediction"] == used
    assert len(tested["averaged"]) == (2 if len(runs) > 1 else 0)
    images = [str(path) for path in sorted((trained.data / "images").glob("test*"))]
    output = ["--output", str(tmp_path / "masks"), "--device", "cpu"]
    assert main(["predict", *checkpoints, "--images", *images, *output, *options]) == 0
    score = ["--predictions", str(tmp_path / "masks"), "--truth", str(trained.folder / "truth")]
    assert main(["score", *score, "--output", str(tmp_path / "scores")]) == 0
    assert results_in(tmp_path / "scores")["native"] == tested["native"]
    plain = results_in(trained.folder / "a")["last"]
    assert tested["native"] != plain["native"]
    assert tested["img_size"] != tested["native"]


def test_without_options_the_numbers_are_the_runs_own(trained):
    assert main(["test", "--checkpoint", str(trained.folder / "a"), "--device", "cpu"]) == 0
    tested, run = results_in(trained.folder / "a" / "m_set_test"), results_in(trained.folder / "a")["last"]
    assert tested["native"]["dice"]["mean"] == pytest.approx(run["native"]["dice"]["mean"], abs=2e-3)
    assert (tested["prediction"], tested["averaged"]) == ({}, [])


def test_logits_at_the_images_own_size_are_reduced_to_the_models(trained):
    """Those of the model itself, enlarged and reduced again, are nearly what they were; masks and sizes are equal."""
    model, config = load_trained(trained.folder / "a" / "m.safetensors")
    dataset = GeneralDataset(config, "test", train=False)
    before = list(predictions(model, dataset, torch.device("cpu"), 1))
    whole = {index: to_native(logits, valid, size) for index, logits, _, size, valid in before}
    for first, second in zip(before, _reduced(whole.__getitem__, dataset, range(len(dataset))), strict=True):
        assert (first[0], first[3], first[4]) == (second[0], second[3], second[4])
        assert torch.equal(first[2], second[2])
        assert first[1].shape == second[1].shape
        assert torch.corrcoef(torch.stack([first[1].flatten(), second[1].flatten()]))[0, 1] > 0.98
