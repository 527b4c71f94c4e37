"""`ft.rank_rule` in runs: ranks from weights, ranks that training chooses, and what results, files, resuming hold."""

import json
import re

import pytest
from short_runs import assert_same_runs, config_of, interrupted_then_resumed, run, signal_at_call, signal_at_step

import train
from adapters import adapted_layers
from main import main
from model import build_model, load_trained
from networks.strategies import parameter_counts
from utils.errors import ConfigError

pytestmark = pytest.mark.usefixtures("no_pictures")

# 2 epochs of 2 steps; the cut is at the end of the first.
# 4.02% are trained beside the adapters, 4.50% with them all. Random weights have gradients so small that AdamW's steps
# are shorter than the learning rate, so that the penalty is too.
PRUNE = ("ft.rank_rule=prune", "ft.rank_penalty=0.001", "ft.rank_budget=0.043", "ft.relu=none", "training.lr=0.01")


def salt(workspace, name, *overrides):
    return run(workspace, f"{name}/m.safetensors", *overrides, strategy="salt")


def loaded_ranks(path):
    model, _ = load_trained(path)
    return {name: layer.ranks for name, layer in adapted_layers(model)}


def salt_parameters(workspace):
    model = build_model(config_of(workspace, strategy="salt"), counted_only=True)
    return parameter_counts(model)["trainable"]


def test_a_pruned_run_says_what_it_cut_and_its_weights_have_these_ranks(workspace, caplog, capsys):
    caplog.set_level("INFO")
    results = salt(workspace, "r", *PRUNE)
    cut = results.rank_cut
    assert cut.epoch == 1
    ranks = {name: {"svd_rank": layer.svd_rank, "r_lora": layer.r_lora} for name, layer in cut.layers.items()}
    assert results.layer_ranks == ranks
    assert all(
        layer.before == {"svd_rank": 4 if "neck" in name else 8, "r_lora": 2} for name, layer in cut.layers.items()
    )
    left, before = (
        [sum(of[key] for of in layers) for key in ("svd_rank", "r_lora")]
        for layers in (ranks.values(), [layer.before for layer in cut.layers.values()])
    )
    assert 0 < left[0] <= before[0]
    assert 0 < left[1] < before[1]
    assert cut.error > 0
    assert 0 <= cut.error <= cut.bound * (1 + 1e-4) + 1e-5
    assert results.percent == pytest.approx(cut.percent)
    assert 4.29 < results.percent <= 4.3  # the budget
    assert (
        f"epoch 1: ranks cut: {left[0]} of {before[0]} scaled singular values and {left[1]} of {before[1]} "
        in caplog.text
    )
    for weights in ("m.safetensors", "best_val.safetensors"):
        assert loaded_ranks(workspace.folder / "r" / weights) == ranks
    assert results.best_val.epoch >= 1
    stored = json.loads((workspace.folder / "r" / "results.json").read_text())
    assert stored["rank_cut"]["layers"].keys() == stored["layer_ranks"].keys() == ranks.keys()
    assert main(["params", "--json", "--checkpoint", str(workspace.folder / "r")]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts["layer_ranks"] == ranks
    assert counts["trainable"] == results.trainable < salt_parameters(workspace)
    assert main(["test", "--checkpoint", str(workspace.folder / "r"), "--device", "cpu"]) == 0
    again = json.loads((workspace.folder / "r" / "m_set_test" / "results.json").read_text())
    assert again["native"]["dice"]["mean"] == pytest.approx(results.last.native.dice.mean, abs=1e-6)
    assert again["layer_ranks"] == ranks


@pytest.mark.slow
def test_a_fixed_run_says_nothing_of_it(workspace):
    results = salt(workspace, "r")
    stored = json.loads((workspace.folder / "r" / "results.json").read_text())
    assert not {"rank_cut", "layer_ranks"} & set(stored)
    assert stored["ranks"] == {"svd_rank_linear": 8, "svd_rank_conv2d": 4, "r_lora": 2, "rank_pattern": {}}
    assert results.rank_cut is None


def test_a_budget_that_cannot_be_kept_is_refused(workspace):
    with pytest.raises(ConfigError, match=r"ft.rank_budget = 0.001: what is trained beside the adapters"):
        salt(workspace, "none", *PRUNE, "ft.rank_budget=0.001")


@pytest.mark.parametrize("step", [3, *(pytest.param(step, marks=pytest.mark.slow) for step in (1, 2))])
def test_a_pruned_run_resumes_to_the_bit(workspace, monkeypatch, step):
    """Steps 1 and 2 come before the cut, 3 and 4 after it."""
    overrides = (*PRUNE, "training.ema_decay=0.9")
    salt(workspace, "whole", *overrides)
    signal_at_step(monkeypatch, step)
    interrupted_then_resumed(workspace, "cut/m.safetensors", *overrides, strategy="salt")
    assert_same_runs(workspace.folder / "whole", workspace.folder / "cut")


@pytest.mark.slow
def test_a_signal_in_the_validation_after_the_cut_does_not_cut_again(workspace, monkeypatch):
    salt(workspace, "whole", *PRUNE)
    signal_at_call(monkeypatch, train, "mean_dice", 1)
    interrupted_then_resumed(workspace, "cut/m.safetensors", *PRUNE, strategy="salt")
    assert_same_runs(workspace.folder / "whole", workspace.folder / "cut")


@pytest.mark.slow
def test_a_cut_at_the_end_is_what_is_saved(workspace):
    results = salt(workspace, "r", *PRUNE, "ft.rank_cut_at=1", "training.patience=1")
    assert results.rank_cut.epoch == results.best_val.epoch == results.epochs == 2
    assert loaded_ranks(workspace.folder / "r" / "m.safetensors") == results.layer_ranks


def test_ranks_by_energy_are_those_of_the_loaded_model(workspace, capsys):
    """Random base weights: a loaded model draws others, so that the file must bring the ranks."""
    results = salt(workspace, "r", "ft.rank_rule=energy", "ft.rank_energy=0.5")
    assert results.ranks == {"rank_rule": "energy", "rank_energy": 0.5, "r_lora": 2, "rank_pattern": {}}
    assert len({layer["svd_rank"] for layer in results.layer_ranks.values()}) > 1
    assert loaded_ranks(workspace.folder / "r" / "m.safetensors") == results.layer_ranks
    assert results.rank_cut is None


@pytest.mark.parametrize(
    ("strategy", "options", "message"),
    [
        ("lora", ["ft.rank_rule=energy"], "ft.rank_rule = energy, but strategy lora has no ranks that it could choose"),
        ("salt", ["ft.rank_budget=0.1"], "has rank_budget, but rank_rule is fixed"),
    ],
)
def test_what_does_not_fit_is_refused(workspace, capsys, strategy, options, message):
    arguments = workspace.train_arguments("r/m.safetensors", "--training_strategy", strategy, "--set", *options)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert not (workspace.folder / "r").exists()


def test_params_shows_each_layers_ranks(workspace, capsys):
    arguments = ["params", "--model_config", str(workspace.model_config)]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert re.search(r"^image_encoder\.blocks\.\*\.attn\.qkv \(4 layers\) +8 +2$", text, re.MULTILINE)
    assert main([*arguments, "--json", "--set", "ft.rank_rule=stable_rank"]) == 0
    counts = json.loads(capsys.readouterr().out)
    ranks = counts["layer_ranks"]
    assert ranks.keys() == {
        name for name, _ in adapted_layers(build_model(config_of(workspace, strategy="salt"), True))
    }
    assert len({layer["svd_rank"] for layer in ranks.values()}) > 1
    assert main([*arguments, "--set", "ft.rank_rule=prune"]) == 0
    assert "before the cut" in capsys.readouterr().out
    assert main([*arguments, "--set", "ft.rank_rule=energy", "sam.weights=pretrained"]) == 2
    assert "no base weights: give --pretrained_path" in capsys.readouterr().err
