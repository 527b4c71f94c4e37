"""Small options of the command line and of training, by the real commands."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from short_runs import config_of, run

from checkpointing.weights_file import read_weights
from datasets.data import EpochSampler
from main import main
from model import build_model
from utils.config import load_config
from utils.device import resolve_device
from utils.errors import ConfigError


def test_the_version_names_commit_and_packages(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("SALT (")
    assert f"torch {torch.__version__}" in second
    assert "segment_anything 1.0" in second


def test_params_of_a_checkpoint_are_those_of_its_config(make_weights, capsys):
    path = make_weights()
    assert main(["params", "--checkpoint", str(path), "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert main(["params", "--model_config", str(path.with_name("m.yaml")), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == counts
    assert main(["params", "--checkpoint", str(path), "--json", "--set", "ft.r_lora=4"]) == 0
    assert json.loads(capsys.readouterr().out)["trainable"] > counts["trainable"]
    assert main(["params"]) == 2
    assert "give --model_config or --checkpoint" in capsys.readouterr().err
    assert main(["params", "--checkpoint", str(path), "--training_strategy", "lora"]) == 2
    assert "--checkpoint has its own config; leave out --training_strategy" in capsys.readouterr().err


def test_check_takes_overrides(workspace, tmp_path, capsys):
    arguments = ["check", "--data_config", str(workspace.data_config), "--output", str(tmp_path / "sheet.png")]
    assert main(arguments) == 0
    capsys.readouterr()
    assert main([*arguments, "--set", "data.label_list=[0, 7, 9]", "data.label_names=[Background, Bar, Spot]"]) == 1
    captured = capsys.readouterr()
    assert "255" in captured.out
    assert "the dataset has errors, listed above" in captured.err


def test_predict_takes_overrides_of_preparation_and_evaluation(sam_weights, tmp_path, capsys):
    image = np.random.default_rng(0).integers(0, 255, (20, 20), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    Image.fromarray(np.minimum(255, image.astype(int) * 2).astype(np.uint8)).save(tmp_path / "b.png")

    def predict(name, output, *more):
        arguments = ["predict", "--checkpoint", str(sam_weights), "--images", str(tmp_path / name), "--device", "cpu"]
        status = main([*arguments, "--output", str(tmp_path / output), "--probabilities", "npy", *more])
        return status and (status, capsys.readouterr().err)

    def mask(output, name="a"):
        return np.asarray(Image.open(tmp_path / output / f"{name}.png"))

    def probabilities(output, name="a"):
        return np.load(tmp_path / output / "probabilities" / f"{name}.npy")

    assert predict("a.png", "plain") == 0
    threshold = f"{np.median(probabilities('plain')):.4f}"
    assert predict("a.png", "option", "--threshold", threshold) == 0
    assert predict("a.png", "set", "--set", f"evaluation.threshold={threshold}") == 0
    assert np.array_equal(mask("set"), mask("option"))
    assert predict("a.png", "brighter", "--set", "data_transforms.a_min=0", "data_transforms.a_max=127.5") == 0
    assert predict("b.png", "bright") == 0
    np.testing.assert_allclose(probabilities("brighter"), probabilities("bright", "b"), atol=1e-4)
    status, error = predict("a.png", "no", "--set", "sam.img_size=64")
    assert status == 2
    assert "a trained model's sam is fixed; keys of data_transforms and evaluation may differ" in error
    status, error = predict("a.png", "no", "--set", "evaluation.treshold=0.4")
    assert (status, "treshold" in error) == (2, True)
    assert not (tmp_path / "no").exists()


def test_mps_is_passed_through_and_said_to_be_untested(monkeypatch, warned):
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    assert resolve_device("mps") == torch.device("mps")
    assert "nothing here was ever run on it" in warned()[0]
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    with pytest.raises(ConfigError, match="asks for Apple's GPU"):
        resolve_device("mps")


def test_samples_are_drawn_by_their_weights():
    """A tenth of the samples with nine times the weight are half of the draws; every repeat has its own key."""
    weights = [9.0] * 10 + [1.0] * 90
    sampler = EpochSampler(range(100), 0, weights)
    drawn = Counter()
    for epoch in range(200):
        sampler.set_epoch(epoch)
        keys = list(sampler)
        assert len(keys) == len(set(keys)) == len(sampler) == 100
        assert {key[0] for key in keys} == {epoch}
        assert keys == list(sampler)
        drawn.update(key[1] for key in keys)
    rare = sum(drawn[index] for index in range(10)) / drawn.total()
    assert rare == pytest.approx(0.5, abs=0.01)
    assert min(drawn.values()) > 50


def test_a_sample_that_is_drawn_twice_is_augmented_twice(workspace):
    from datasets.data import GeneralDataset

    dataset = GeneralDataset(config_of(workspace), "train", train=True, seed=0)
    first, plain, second = (dataset[key]["image"] for key in ((3, 1, 0), (3, 1), (3, 1, 1)))
    assert not torch.equal(first, second)
    assert not torch.equal(plain, second)
    assert torch.equal(dataset[3, 1, 1]["image"], second)


@pytest.mark.usefixtures("no_pictures")
def test_label_weights_choose_what_is_trained(tmp_path, draw_dataset, make_workspace, monkeypatch):
    workspace = make_workspace(tmp_path)
    draw_dataset(tmp_path / "two", {"train": 4, "val": 2, "test": 2}, labels=2)
    workspace.data_config.write_text(
        f"data: {{root_path: {tmp_path / 'two'}, label_list: [0, 1, 2], label_names: [Background, Bar, Spot]}}\n"
    )
    trained = Counter()
    import training.step

    original = training.step._forward_and_backward

    def counted(run, batch, share):
        trained.update(batch["label"])
        return original(run, batch, share)

    monkeypatch.setattr(training.step, "_forward_and_backward", counted)
    run(workspace, "run/m.safetensors", "training.label_weights={Spot: 1e9}", "training.num_epochs=1")
    assert trained == {"Spot": 8}
    with pytest.raises(ConfigError, match=r"names 'Fovea', but data\.label_names has Bar, Spot"):
        config_of(workspace, "training.label_weights={Fovea: 2}")


@pytest.mark.usefixtures("no_pictures")
def test_frozen_patterns_are_not_trained(workspace):
    config = config_of(workspace, "training.freeze=[image_encoder.pos_embed, '*norm?.*']")
    names = {name for name, p in build_model(config).named_parameters() if p.requires_grad}
    everything = {name for name, p in build_model(config_of(workspace)).named_parameters() if p.requires_grad}
    left_out = everything - names
    assert "image_encoder.pos_embed" in left_out
    assert all("norm" in name or name == "image_encoder.pos_embed" for name in left_out)
    assert len(left_out) > 10
    run(workspace, "run/m.safetensors", "training.freeze=[image_encoder.pos_embed, '*norm?.*']", "sam.weights=random")
    assert names <= set(read_weights(workspace.folder / "run" / "best_val.safetensors").tensors)
    with pytest.raises(ConfigError, match=r"training.freeze: 'encoder.\*' matches no trained parameter"):
        build_model(config_of(workspace, "training.freeze=['encoder.*']"))
    with pytest.raises(ConfigError, match="leave nothing to train"):
        build_model(config_of(workspace, "training.freeze=['*']"))
    build_model(load_config(workspace.model_config, None, ["training.freeze=['*']"], "none"))
