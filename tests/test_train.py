"""The training loop: schedules, resume to the bit, non-finite losses, signals."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import train
from checkpoint import read_weights
from experiment import train_and_evaluate
from utils.config import TrainingConfig, load_config
from utils.errors import UserError
from utils.run_log import read_metrics

NANO = Path(__file__).resolve().parents[1] / "weights" / "nano_sam.safetensors"


def run(workspace, save, *overrides, strategy="lora", resume=False):
    config = load_config(workspace.model_config, workspace.data_config, overrides, strategy)
    return train_and_evaluate(config, workspace.folder / save, torch.device("cpu"), resume)


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
        assert train.learning_rate_factor(training, step, 10) == pytest.approx(factor), step


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_resumed_equals_uninterrupted_to_the_bit(workspace, monkeypatch, optimizer):
    """LoRA's dropout draws from torch's generator, augmentation from (seed, epoch, index)."""
    overrides = ("training.num_epochs=4", f"training.optimizer={optimizer}")
    run(workspace, "whole/m.safetensors", *overrides)
    epochs = iter(range(1, 100))
    original = train.train_epoch

    def stop_in_third(*arguments):
        if next(epochs) == 3:
            original(*arguments)  # the epoch in flight leaves its traces in weights and generators
            raise train.StoppedError("stopped")
        return original(*arguments)

    monkeypatch.setattr(train, "train_epoch", stop_in_third)
    with pytest.raises(train.StoppedError):
        run(workspace, "cut/m.safetensors", *overrides)
    monkeypatch.setattr(train, "train_epoch", original)
    torch.manual_seed(1234)
    run(workspace, "cut/m.safetensors", *overrides, resume=True)

    whole, cut = (read_weights(workspace.folder / name / "m.safetensors").tensors for name in ("whole", "cut"))
    assert set(whole) == set(cut)
    assert all(torch.equal(whole[key], cut[key]) for key in whole)
    lines = [
        [
            {k: v for k, v in line.items() if k != "seconds"}
            for line in read_metrics(workspace.folder / name / "metrics.jsonl")
        ]
        for name in ("whole", "cut")
    ]
    assert lines[0] == lines[1]
    assert [line["epoch"] for line in lines[0]] == [1, 2, 3, 4]


def test_two_runs_of_one_seed_are_equal_and_two_seeds_are_not(workspace):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(workspace, f"{name}/m.safetensors", f"seed={seed}", strategy="salt")
    a, b, c = (read_weights(workspace.folder / name / "m.safetensors").tensors for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert any(not torch.equal(a[key], c[key]) for key in a)


def test_resume_needs_a_run_of_the_same_config(workspace):
    with pytest.raises(UserError, match=r"state.pth: nothing to resume"):
        run(workspace, "r/m.safetensors", resume=True)
    run(workspace, "r2/m.safetensors")
    with pytest.raises(UserError, match="was trained with another config"):
        run(workspace, "r2/m.safetensors", "training.lr=0.5", resume=True)


def test_an_unfinished_run_is_not_overwritten(workspace, monkeypatch):
    def stopped(*_):
        raise train.StoppedError("stopped")

    original = train.train_epoch
    epochs = iter([original, stopped])
    monkeypatch.setattr(train, "train_epoch", lambda *arguments: next(epochs)(*arguments))
    with pytest.raises(train.StoppedError):
        run(workspace, "r/m.safetensors")
    before = (workspace.folder / "r" / "last" / "state.pth").read_bytes()
    with pytest.raises(UserError, match="holds an unfinished run; go on with --resume"):
        run(workspace, "r/m.safetensors")
    assert (workspace.folder / "r" / "last" / "state.pth").read_bytes() == before


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_state(workspace, monkeypatch):
    original = train.SegmentationLoss.parts
    calls = []

    def poisoned(self, logits, masks):
        calls.append(1)
        parts = original(self, logits, masks)
        return {**parts, "total": parts["total"] * float("nan")} if len(calls) == 4 else parts

    monkeypatch.setattr(train.SegmentationLoss, "parts", poisoned)
    with pytest.raises(
        UserError, match=r"epoch 2, step 2: the loss or its gradient is nan on train\d.png, train\d.png"
    ):
        run(workspace, "r/m.safetensors")
    state = torch.load(workspace.folder / "r" / "last" / "state.pth", weights_only=True)
    assert state["progress"]["epoch"] == 1
    assert all(torch.isfinite(tensor).all() for tensor in state["model"].values())


def test_a_gradient_that_is_not_finite_stops_the_run_before_the_step(workspace, monkeypatch):
    monkeypatch.setattr(
        train.adapters, "regularization_loss", lambda model: _InfiniteSlope.apply(_first_trained(model))
    )
    with pytest.raises(UserError, match=r"epoch 1, step 1: the loss or its gradient is (nan|inf)"):
        run(workspace, "r/m.safetensors", strategy="salt")
    state = torch.load(workspace.folder / "r" / "last" / "state.pth", weights_only=True)
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


def test_resuming_on_other_base_weights_is_refused(workspace):
    run(workspace, "r/m.safetensors")
    state = torch.load(workspace.folder / "r" / "last" / "state.pth", weights_only=True)
    torch.save({**state, "base_sha256": "0" * 64}, workspace.folder / "r" / "last" / "state.pth")
    with pytest.raises(UserError, match=r"was trained on other base weights"):
        run(workspace, "r/m.safetensors", resume=True)


def test_a_batch_of_one_trains(workspace):
    for norm in ("layernorm", "batchnorm"):
        results = run(workspace, f"{norm}/m.safetensors", "training.batch_size=1", f"prompts.text_affine_norm={norm}")
        assert results["last"]["img_size"]["n"] == 2


@pytest.mark.parametrize("strategy", ["salt", "svd", "svdbiastuning", "lora", "biastuning", "decoder", "full"])
def test_every_strategy_learns(workspace, strategy):
    """From the shipped nano SAM: the loss on the training images falls."""
    overrides = ["training.num_epochs=12", "training.lr=3e-3", "sam.weights=pretrained", f"pretrained_path={NANO}"]
    run(workspace, "r/m.safetensors", *overrides, strategy=strategy)
    losses = [line["loss"]["dice"] for line in read_metrics(workspace.folder / "r" / "metrics.jsonl")]
    assert sum(losses[-3:]) / 3 < sum(losses[:3]) / 3 - 0.05


def test_a_signal_finishes_the_step_and_exits_3_and_resume_goes_on(workspace):
    arguments = workspace.train_arguments("r/m.safetensors", "--set", "training.num_epochs=500")
    process = subprocess.Popen(
        [sys.executable, "main.py", *arguments],
        cwd=Path(__file__).resolve().parents[1],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    metrics = workspace.folder / "r" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and len(read_metrics(metrics)) >= 2):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 3, stderr
    assert "stopped by a signal" in stderr.splitlines()[-1]
    state = torch.load(workspace.folder / "r" / "last" / "state.pth", weights_only=True)
    done = state["progress"]["epoch"]
    assert done == len(read_metrics(metrics)) >= 2
    assert not (workspace.folder / "r" / "results.json").exists()
    recorded = json.loads((workspace.folder / "r" / "environment.json").read_text())["packages"]["torch"]
    assert torch.__version__.startswith(recorded)
