"""`test` with --tile, --tta, --threshold and several checkpoints scores the masks that `predict` writes with them."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from data_transforms.data_transforms import to_native
from datasets.data import GeneralDataset
from experiments.scoring import mirrored_logits
from main import main
from model import load_model, load_trained
from test import _reduced, choose_threshold, predictions


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
        (
            "a",
            ["--tile", "--tile_overlap", "0.5"],
            "m_set_test_tile_tile_overlap_0.5",
            {"tile": True, "tile_overlap": 0.5},
        ),
        ("ab", [], "m_set_test_mean_of_2_*", {}),
        (
            "ab",
            ["--tile", "--threshold", "0.48"],
            "m_set_test_tile_threshold_0.48_mean_of_2_*",
            {"tile": True, "threshold": 0.48},
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_predict_writes_is_what_test_scores(trained, tmp_path, runs, options, folder, used):
    checkpoints = ["--checkpoint", *(str(trained.folder / run) for run in runs)]
    assert main(["test", *checkpoints, "--device", "cpu", *options]) == 0
    [written] = (trained.folder / "a").glob(folder)
    tested = results_in(written)
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


def test_means_with_different_checkpoints_have_different_folders(trained):
    for folder in ("one", "two"):
        shutil.copytree(trained.folder / "b", trained.folder / folder)
    before = set((trained.folder / "b").iterdir())
    for folder in ("one", "two", "two"):
        checkpoints = [str(trained.folder / name) for name in ("b", folder)]
        assert main(["test", "--checkpoint", *checkpoints, "--device", "cpu"]) == 0
    averaged = [results_in(path)["averaged"][1] for path in set((trained.folder / "b").iterdir()) - before]
    assert sorted(averaged) == [str(trained.folder / name / "m.safetensors") for name in ("one", "two")]


@pytest.mark.usefixtures("no_pictures")
def test_no_model_is_tested_on_images_that_it_was_trained_on(workspace, capsys, monkeypatch):
    """As the other folds' models of a cross-validation, or an old run after the split was drawn anew."""
    assert main(workspace.train_arguments("run/m.safetensors", "--set", "training.num_epochs=1")) == 0
    run, split = workspace.folder / "run", workspace.data / "data_split.csv"
    swapped = {"train": "test", "test": "train"}
    lines = [line.rsplit(",", 1) for line in split.read_text().splitlines()]
    split.write_text("".join(f"{name},{swapped.get(part, part)}\n" for name, part in lines))
    before = sorted(run.iterdir())
    for checkpoint in (run, run / "best_val.safetensors"):
        assert main(["test", "--checkpoint", str(checkpoint), "--device", "cpu"]) == 1
        assert "was trained on 4 of these 4 test images, such as train0.png" in capsys.readouterr().err
    assert sorted(run.iterdir()) == before
    assert main(["test", "--checkpoint", str(run), "--split", "train", "--device", "cpu"]) == 0
    config = run / "config.yaml"  # as of a set in the project's folder
    config.write_text(config.read_text().replace(str(workspace.data), workspace.data.name))
    monkeypatch.setattr("utils.files.PROJECT_ROOT", workspace.folder)
    assert main(["test", "--checkpoint", str(run), "--device", "cpu"]) == 1


@pytest.mark.parametrize("command", ["test", "predict"])
def test_an_overlap_of_windows_that_are_not_used_is_refused(trained, tmp_path, capsys, command):
    more = ["--images", str(trained.data / "images"), "--output", str(tmp_path)] if command == "predict" else []
    arguments = [command, "--checkpoint", str(trained.folder / "a"), "--device", "cpu", "--tile_overlap", "0.5", *more]
    assert main(arguments) == 2
    assert "--tile_overlap: is for --tile, and for models of data_transforms.scale: native" in capsys.readouterr().err


@pytest.mark.usefixtures("no_pictures")
def test_the_intensity_window_is_that_of_the_images_tested(trained, tmp_path):
    """The same test images with 16 bits, of which 12 are used."""
    shutil.copytree(trained.data, tmp_path / "set")
    for path in (tmp_path / "set" / "images").glob("test*"):
        Image.fromarray(np.asarray(Image.open(path).convert("L")).astype(np.uint16) * 16).save(path)
    text = trained.data_config.read_text().replace(str(trained.data), str(tmp_path / "set"))
    config = yaml.safe_load(text)
    config["data"]["name"] = "deep"
    found = []
    for folder, window in (("m_deep_test", {}), ("m_deep_test_a_min_0_a_max_4080", {"a_min": 0, "a_max": 4080})):
        config["data_transforms"] = window
        (tmp_path / "data.yaml").write_text(yaml.safe_dump(config))
        more = ["--data_config", str(tmp_path / "data.yaml"), "--device", "cpu"]
        assert main(["test", "--checkpoint", str(trained.folder / "a"), *more]) == 0
        results = results_in(trained.folder / "a" / folder)
        assert results["prediction"] == window
        found.append(results["native"]["dice"]["mean"])
        both = [str(trained.folder / run) for run in ("a", "b")]
        assert main(["test", "--checkpoint", *both, *more]) == 0
    own = results_in(trained.folder / "a")["last"]["native"]["dice"]["mean"]
    assert found[1] == pytest.approx(own, abs=2e-3)
    assert found[0] != pytest.approx(own, abs=2e-3)


@pytest.mark.usefixtures("no_pictures")
def test_the_mean_of_several_is_of_the_set_that_is_tested(trained, tmp_path):
    """Another set may write its labels with other values; each model alone can be tested on it."""
    shutil.copytree(trained.data, tmp_path / "set")
    for path in (tmp_path / "set" / "masks").glob("*.png"):
        mask = np.asarray(Image.open(path))
        Image.fromarray(np.where(mask > 0, 7, 0).astype(np.uint8)).save(path)
    config = yaml.safe_load(trained.data_config.read_text().replace(str(trained.data), str(tmp_path / "set")))
    config["data"] |= {"name": "sevens", "label_list": [0, 7]}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(config))
    both = [str(trained.folder / run) for run in ("a", "b")]
    dice = []
    for more in ([], ["--data_config", str(tmp_path / "data.yaml")]):
        assert main(["test", "--checkpoint", *both, "--device", "cpu", *more]) == 0
        (folder,) = (trained.folder / "a").glob(f"m_{'sevens' if more else 'set'}_test_mean_of_2_*")
        dice.append(results_in(folder)["native"]["dice"])
    assert dice[0] == dice[1]


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


@pytest.mark.usefixtures("no_pictures")
def test_mirror_images_of_a_checkpoint_can_be_switched_off(workspace, capsys):
    more = ["--set", "training.num_epochs=1", "evaluation.tta=flips", "evaluation.threshold=val"]
    assert main(workspace.train_arguments("run/m.safetensors", *more)) == 0
    run = workspace.folder / "run"
    for options in ([], ["--tta", "none"]):
        assert main(["test", "--checkpoint", str(run), "--device", "cpu", *options]) == 0
    own, plain = (results_in(run / name) for name in ("m_set_test", "m_set_test_no_flips"))
    assert own["native"] == results_in(run)["last"]["native"] != plain["native"]
    assert plain["prediction"] == {"flips": False}
    image = str(next((workspace.data / "images").glob("test*")))
    predictor = load_model(run / "m.safetensors")
    for options, flips in (([], True), (["--tta", "none"], False)):
        output = workspace.folder / f"flips{flips}"
        common = ["--checkpoint", str(run), "--images", image, "--device", "cpu", "--probabilities", "npy"]
        assert main(["predict", *common, "--output", str(output), *options]) == 0
        [written] = (output / "probabilities").iterdir()
        np.testing.assert_array_equal(np.load(written)[0], predictor.probabilities(image, "Bar", flips=flips))
    assert main(["test", "--checkpoint", str(run), "--device", "cpu", "--prompt", "box"]) == 1
    assert "averages mirror images (evaluation.tta: flips), for text alone; give --tta none" in capsys.readouterr().err
    assert main(["test", "--checkpoint", str(run), "--device", "cpu", "--prompt", "box", "--tta", "none"]) == 0


def test_the_threshold_is_chosen_for_the_mean_over_mirror_images(workspace, no_pictures):
    more = ["--set", "training.num_epochs=1", "evaluation.tta=flips", "evaluation.threshold=val"]
    assert main(workspace.train_arguments("run/m.safetensors", *more)) == 0
    model, config = load_trained(workspace.folder / "run" / "m.safetensors")
    dataset = GeneralDataset(config, "val", train=False)
    mirrored = mirrored_logits(model, dataset, config, torch.device("cpu"))
    expected = choose_threshold(model, dataset, torch.device("cpu"), 1, native_logits=mirrored)
    assert config.evaluation.threshold == expected
    assert expected != choose_threshold(model, dataset, torch.device("cpu"), 1), "this set tells them apart"


def test_mirror_images_do_not_go_with_boxes_and_clicks(workspace, capsys):
    more = ["--set", "prompts.type=box", "evaluation.tta=flips"]
    assert main(workspace.train_arguments("run/m.safetensors", *more)) == 2
    assert "which the mirror images of evaluation.tta = flips do not take; set tta: none" in capsys.readouterr().err
    assert main(workspace.train_arguments("run/m.safetensors", *more[:2], "training.num_epochs=1")) == 0
    before = sorted((workspace.folder / "run").rglob("*"))
    for options, message in ((["--tta", "flips"], "for text alone"), (["--tile"], "its prompt is box")):
        assert main(["test", "--checkpoint", str(workspace.folder / "run"), "--device", "cpu", *options]) == 1
        assert message in capsys.readouterr().err
    assert sorted((workspace.folder / "run").rglob("*")) == before
