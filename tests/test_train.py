"""The training loop: schedules, one seed, non-finite losses, every strategy."""

import math
from pathlib import Path

import pytest
import torch
from short_runs import run

from checkpointing.weights_file import read_weights
from experiments import experiment
from training import run as run_state
from training.optimizer import learning_rate_factor
from training.run_log import read_metrics
from training.state_files import StateFolder
from utils.config.schema import TrainingConfig
from utils.errors import UserError
from utils.losses import SegmentationLoss

NANO = Path(__file__).resolve().parents[1] / "weights" / "nano_sam.safetensors"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"schedular": "constant"}, {0: 1, 39: 1}),
        ({"schedular": "step", "schedule_step": 2, "schedule_step_factor": 0.5}, {0: 1, 19: 1, 20: 0.5, 39: 0.5}),
        ({"schedular": "multistep", "steps": [1, 3], "decay_factor": 0.1}, {9: 1, 10: 0.1, 29: 0.1, 30: 0.01}),
        ({"schedular": "cosine"}, {0: 1, 20: 0.5, 39: 0.5 * (1 + math.cos(math.pi * 39 / 40))}),
        ({"schedular": "constant", "warmup_steps": 4}, {0: 0.25, 1: 0.5, 3: 1, 4: 1}),
        ({"schedular": "cosine", "warmup_steps": 10}, {0: 0.1, 9: 1, 10: 1, 25: 0.5}),
    ],
)
def test_learning_rate_schedules(settings, expected):
    training = TrainingConfig(num_epochs=4, **settings)
    for step, factor in expected.items():
        assert learning_rate_factor(training, step, 10) == pytest.approx(factor), step


def test_two_runs_of_one_seed_are_equal_and_two_seeds_are_not(workspace):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(workspace, f"{name}/m.safetensors", f"seed={seed}", strategy="salt")
    a, b, c = (read_weights(workspace.folder / name / "m.safetensors").tensors for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert any(not torch.equal(a[key], c[key]) for key in a)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_state(workspace, monkeypatch):
    original = SegmentationLoss.parts
    calls = []

    def poisoned(self, logits, masks):
        calls.append(1)
        parts = original(self, logits, masks)
        return {**parts, "total": parts["total"] * float("nan")} if len(calls) == 4 else parts

    monkeypatch.setattr(SegmentationLoss, "parts", poisoned)
    with pytest.raises(
        UserError, match=r"epoch 2, step 2: the loss or its gradient is nan on train\d.png, train\d.png"
    ):
        run(workspace, "r/m.safetensors")
    states = StateFolder(workspace.folder / "r" / "last")
    state = states.read(states.newest())
    assert state["progress"]["epoch"] == 1
    assert all(torch.isfinite(tensor).all() for tensor in state["model"].values())


def test_a_gradient_that_is_not_finite_stops_the_run_before_the_step(workspace, monkeypatch):
    monkeypatch.setattr(
        run_state.adapters, "regularization_loss", lambda model: _InfiniteSlope.apply(_first_trained(model))
    )
    with pytest.raises(UserError, match=r"epoch 1, step 1: the loss or its gradient is (nan|inf)"):
        run(workspace, "r/m.safetensors", strategy="salt")
    states = StateFolder(workspace.folder / "r" / "last")
    state = states.read(states.newest())
    assert all(torch.isfinite(tensor).all() for tensor in state["model"].values())


class _InfiniteSlope(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.shape = x.shape
        return x.new_zeros(())

    @staticmethod
    def backward(ctx, gradient):
        return torch.full(ctx.shape, float("inf"))


def _first_trained(model):
    return next(p for p in model.parameters() if p.requires_grad)


def test_a_batch_of_one_trains(workspace):
    for norm in ("layernorm", "batchnorm"):
        results = run(workspace, f"{norm}/m.safetensors", "training.batch_size=1", f"prompts.text_affine_norm={norm}")
        assert results.last.img_size.n == 2


def test_a_last_epoch_that_is_the_best_is_scored_once(workspace, monkeypatch):
    scored = []
    real = experiment.score_dataset
    monkeypatch.setattr(experiment, "score_dataset", lambda *args: scored.append(args) or real(*args))
    overrides = ["training.num_epochs=2", "sam.weights=pretrained", f"pretrained_path={NANO}"]
    once = run(workspace, "once/m.safetensors", *overrides)
    assert (len(scored), once.best_val.epoch) == (1, 2)
    monkeypatch.setattr(experiment, "same_tensors", lambda a, b: False)
    twice = run(workspace, "twice/m.safetensors", *overrides)
    assert len(scored) == 3
    assert once.best_val == twice.best_val


@pytest.mark.parametrize("strategy", ["salt", "svd", "svdbiastuning", "lora", "biastuning", "decoder", "full"])
def test_every_strategy_learns(workspace, strategy):
    """From the shipped nano SAM: the loss on the training images falls."""
    overrides = ["training.num_epochs=12", "training.lr=3e-3", "sam.weights=pretrained", f"pretrained_path={NANO}"]
    run(workspace, "r/m.safetensors", *overrides, strategy=strategy)
    losses = [line["loss"]["dice"] for line in read_metrics(workspace.folder / "r" / "metrics.jsonl")]
    assert sum(losses[-3:]) / 3 < sum(losses[:3]) / 3 - 0.05


def test_a_run_with_every_part_of_the_loss_and_weights(workspace):
    loss = "focal:1+dice:1+bce:0.5+cldice:0.5+tversky:0.1+focal_tversky:0.1+boundary:0.01"
    run(workspace, "r/m.safetensors", f"training.loss={loss}", "training.num_epochs=1")
    [record] = read_metrics(workspace.folder / "r" / "metrics.jsonl")
    parts = record["loss"]
    weights = {name: float(weight) for name, _, weight in (part.partition(":") for part in loss.split("+"))}
    expected = sum(weight * parts[name] for name, weight in weights.items()) + 0.01 * parts["regularization"]
    assert parts["total"] == pytest.approx(expected, rel=1e-5)
