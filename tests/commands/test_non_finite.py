"""NaN never passes for a result: weights are refused by name, and logits as they come."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from main import main
from prediction import export_onnx


def error_of(capsys, arguments, status=1):
    assert main([str(argument) for argument in arguments]) == status
    [error] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return error


@pytest.fixture
def spoilt(sam_weights, tmp_path):
    """Writes the checkpoint with the first value of one weight replaced; returns its path and the weight's name."""

    def write(value):
        with safe_open(sam_weights, framework="pt") as file:
            metadata = file.metadata()
        tensors = load_file(sam_weights)
        key = "image_encoder.blocks.0.norm1.weight"
        tensors[key].view(-1)[0] = value
        save_file(tensors, tmp_path / "spoilt.safetensors", metadata)
        return tmp_path / "spoilt.safetensors", key

    return write


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_every_command(spoilt, tmp_path, capsys, value):
    path, key = spoilt(value)
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "a.png")
    of = ["--checkpoint", path]
    for arguments in (
        ["test", *of, "--device", "cpu"],
        ["predict", *of, "--images", tmp_path / "a.png", "--output", tmp_path / "out", "--device", "cpu"],
        ["export", *of, "--output", tmp_path / "e.safetensors"],
        ["export", *of, "--output", tmp_path / "e.onnx", "--format", "onnx"],
    ):
        assert f"{path}: '{key}' holds values that are not finite" in error_of(capsys, arguments)
    assert {file.name for file in tmp_path.iterdir()} == {"spoilt.safetensors", "a.png"}


def test_base_weights_that_are_not_finite_are_refused(workspace, capsys):
    from model import build_model
    from prompt_adapted_segment_anything import SAM_PREFIXES
    from utils.config import load_config

    state = build_model(load_config(workspace.model_config, None, (), "none")).state_dict()
    state = {key: value for key, value in state.items() if key.startswith(SAM_PREFIXES)}
    state["image_encoder.pos_embed"].view(-1)[3] = float("nan")
    save_file(state, workspace.folder / "base.safetensors")
    workspace.model_config.write_text(workspace.model_config.read_text().replace(", weights: random", ""))
    arguments = workspace.train_arguments("r/m.safetensors", "--pretrained_path", workspace.folder / "base.safetensors")
    assert "base.safetensors: 'image_encoder.pos_embed' holds values that are not finite" in error_of(capsys, arguments)


def test_a_learning_rate_that_ruins_the_model_in_its_last_step_fails(workspace, capsys, no_pictures):
    more = ["--training_strategy", "lora", "--set", "training.lr=1e9", "training.num_epochs=1", "training.batch_size=4"]
    error = error_of(capsys, workspace.train_arguments("r/m.safetensors", *more))
    assert "images/val0.png: the model's output is not finite" in error
    assert "training.lr" in error
    assert not (workspace.folder / "r" / "m.safetensors").exists()
    assert not (workspace.folder / "r" / "best_val.safetensors").exists()


def test_prediction_names_the_image_whose_logits_are_not_finite(spoilt, tmp_path, capsys):
    path, _ = spoilt(3e38)  # finite, and everything after it is not
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "a.png")
    out = tmp_path / "out"
    assert (
        main(
            [
                "predict",
                "--checkpoint",
                str(path),
                "--images",
                f"{tmp_path}/a.png",
                "--output",
                str(out),
                "--device",
                "cpu",
            ]
        )
        == 1
    )
    assert f"failed: {tmp_path / 'a.png'}: the model's output is not finite" in capsys.readouterr().err
    assert not out.exists()


def test_the_check_of_an_onnx_file_does_not_take_nan_for_equal(monkeypatch, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="the optional package onnxruntime is not installed")

    class Session:
        def __init__(self, *_, **__):
            pass

        def run(self, *_):
            return [np.full((1, 1, 32, 32), np.nan, np.float32)]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    difference = export_onnx._largest_difference(torch.nn.Identity(), 32, tmp_path / "x.onnx")
    assert not difference <= export_onnx.TOLERANCE
