"""Every adapter method on the whole SAM and SAM2: merged, exported and saved it gives the trained model's output."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from stock_models import stock_sam, stock_sam2

import adapters
from main import main
from model import build_model, load_model, load_trained, save_model
from utils.config import load_config

ROOT = Path(__file__).resolve().parents[2]
METHODS = [name for name in adapters.METHODS if name not in ("salt", "svd", "lora")]  # test_export.py has these
IMAGE = np.random.default_rng(0).integers(0, 255, (50, 40, 3), dtype=np.uint8)
# Windows don't divide the grid: SAM's padding tokens get the output for zeros, SSF's shift among it.
SIZES = {"sam": ("sam.img_size=80", stock_sam), "sam2": ("sam.img_size=96", stock_sam2)}
QUICK = [("pissa", "sam"), ("kasa", "sam"), ("ssf", "sam"), ("adaptformer", "sam")]


@pytest.fixture
def trained(make_weights):
    """A function (method, kind) -> a weights file of a nano model whose adapters have moved."""
    return lambda method, kind="sam": make_weights(kind, ("Vein",), (f"strategy={method}", SIZES[kind][0]))


def exported(checkpoint, output, kind="sam"):
    return main(["export", "--checkpoint", str(checkpoint), "--output", str(output), "--format", kind])


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        pytest.param(name, kind, marks=() if (name, kind) in QUICK else pytest.mark.slow)
        for name in METHODS
        for kind in SIZES
    ],
)
def test_the_trained_the_merged_and_the_exported_model_agree(trained, tmp_path, method, kind):
    checkpoint = trained(method, kind)
    model, _ = load_trained(checkpoint)
    predictor = load_model(checkpoint)
    pixels, _, _ = predictor.transform(IMAGE)
    expected = model(pixels[None], ["Vein"]).detach()  # with gradients: not from merged weights
    with torch.no_grad():
        merged = predictor.model(pixels[None], ["Vein"])
    torch.testing.assert_close(merged, expected, atol=1e-3, rtol=1e-3)
    unmerged = [] if adapters.METHODS[method].layer.mergeable else list(dict(adapters.adapted_layers(model)))
    assert list(dict(adapters.adapted_layers(predictor.model))) == unmerged

    assert exported(checkpoint, tmp_path / "full.safetensors", "full") == 0
    full = load_model(tmp_path / "full.safetensors")
    assert torch.equal(full.logits(IMAGE), predictor.logits(IMAGE))
    if unmerged:
        return
    assert exported(checkpoint, tmp_path / "m.safetensors") == 0
    theirs = SIZES[kind][1](load_file(tmp_path / "m.safetensors"), model.img_size)
    _, logits = theirs(pixels[None], model.text_tokens(["Vein"]).detach())
    assert 0 < (expected > 0).float().mean() < 1
    assert ((logits > 0) == (expected > 0)).float().mean() > 0.999


def test_what_cannot_be_merged_is_no_official_file_and_no_base(trained, tmp_path, workspace, capsys):
    checkpoint = trained("adaptformer")
    assert exported(checkpoint, tmp_path / "m.pth") == 1
    assert "has adapters that cannot be merged (adaptformer)" in capsys.readouterr().err
    assert not (tmp_path / "m.pth").exists()
    workspace.model_config.write_text(workspace.model_config.read_text().replace(", weights: random", ""))
    assert main(workspace.train_arguments("run/m.safetensors", "--pretrained_path", str(checkpoint))) == 1
    assert "it can't be the base of another model" in capsys.readouterr().err


@pytest.mark.slow
def test_onnx_keeps_what_cannot_be_merged(trained, tmp_path, capsys):
    pytest.importorskip("onnx", reason="the optional package onnx is not installed")
    pytest.importorskip("onnxruntime", reason="the optional package onnxruntime is not installed")
    assert exported(trained("adaptformer"), tmp_path / "m.onnx", "onnx") == 0
    assert "equal to PyTorch's probabilities to" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["dora", "pissa", "kasa", "ssf"])
def test_a_weights_file_beside_its_base_is_small_and_gives_the_same_model(trained, tmp_path, workspace, method):
    assert exported(trained("lora"), tmp_path / "base.safetensors") == 0
    workspace.model_config.write_text(
        workspace.model_config.read_text().replace("img_size: 32", "img_size: 80").replace(", weights: random", "")
    )
    config = load_config(workspace.model_config, workspace.data_config, (), method, tmp_path / "base.safetensors")
    model = build_model(config)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in adapters.adapter_parameters(model).values():
            parameter.add_(0.05 * torch.randn_like(parameter))
    save_model(model, config, tmp_path / "m.safetensors", epoch=1)
    assert (tmp_path / "m.safetensors").stat().st_size < 0.2 * (tmp_path / "base.safetensors").stat().st_size
    again, _ = load_trained(tmp_path / "m.safetensors")
    pixels = torch.randn(1, 3, 80, 80)
    assert torch.equal(again(pixels, ["Bar"]), model.eval()(pixels, ["Bar"]))


def test_the_configs_beyond_the_paper_have_the_counts_that_they_and_the_page_state(capsys):
    page = (ROOT / "docs" / "methods.md").read_text()
    for path in sorted((ROOT / "configs" / "table1" / "beyond").glob("*.yaml")):
        if path.stem == "sweep":
            continue
        assert main(["params", "--model_config", str(path), "--json"]) == 0
        counts = json.loads(capsys.readouterr().out)
        trainable, percent = counts["trainable"], f"{counts['percent']:.2f}"
        assert f"{percent} % / {trainable / 1e6:.1f}M trainable" in path.read_text().splitlines()[0]
        assert f"| `{path.name}` | {trainable:,} | {percent} |" in page
        assert 0.4 < counts["percent"] < 0.7 or 13.9 < counts["percent"] < 14.2  # of LoRA's rows 0.64 and 14.08
