"""The detail head: starts as SAM's own masks, sees single pixels and the label, and travels with its model."""

import pytest
import torch
from weights_files import KINDS, write_weights

import adapters
from main import main
from model import build_model, load_model, load_trained
from networks.strategies import parameter_counts
from utils.config import load_config
from utils.config.options import Strategy

SAMS = ("sam", "sam2")
DETAIL = "sam.mask_head=detail"


def build(folder, kind, *overrides, strategy="salt"):
    (folder / "m.yaml").write_text(
        f"{KINDS[kind]}prompts: {{text_encoder: learned}}\n"
        f"data: {{root_path: {folder}, label_list: [0, 1, 2], label_names: [Background, Vein, Artery]}}\n"
        "ft: {svd_ratio: 0.2, r_lora: 2}\n"
    )
    torch.manual_seed(0)
    return build_model(load_config(folder / "m.yaml", None, list(overrides), strategy), encode_text=False).eval()


@pytest.fixture(params=SAMS)
def kind(request):
    return request.param


def with_moved_head(folder, kind, **options):
    model = build(folder, kind, DETAIL, **options)
    with torch.no_grad():
        for parameter in model.detail_head.correction.parameters():
            parameter.normal_(std=0.1)
    return model


@torch.no_grad()
def test_before_training_the_masks_are_the_official_ones_to_the_bit(tmp_path, kind):
    official, detail = build(tmp_path, kind), build(tmp_path, kind, DETAIL)
    missing = detail.load_state_dict(official.state_dict(), strict=False).missing_keys
    assert missing
    assert all(key.startswith("detail_head.") for key in missing)
    x = torch.randn(2, 3, official.img_size, official.img_size)
    assert torch.equal(official(x, ["Vein", "Artery"]), detail(x, ["Vein", "Artery"]))


def test_gradients_reach_sam_the_prompt_and_the_head(tmp_path, kind):
    model = with_moved_head(tmp_path, kind)
    x = torch.randn(2, 3, model.img_size, model.img_size)
    logits = model(x, ["Vein", "Artery"])
    official = build(tmp_path, kind)
    (logits - official(x, ["Vein", "Artery"]).detach()).square().mean().backward()
    for parameter in (*adapters.adapter_parameters(model).values(), *model.detail_head.parameters()):
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    assert any(p.grad.abs().sum() > 0 for p in adapters.adapter_parameters(model).values())
    assert model.text_encoder.embedding.weight.grad.abs().sum() > 0


@torch.no_grad()
def test_the_correction_depends_on_the_label_and_on_single_pixels(tmp_path, kind):
    model = with_moved_head(tmp_path, kind)
    x = torch.randn(1, 3, model.img_size, model.img_size)
    corrections = []

    def keep(_module, _inputs, output):
        corrections.append(output)

    handle = model.detail_head.register_forward_hook(keep)
    for label in ("Vein", "Artery"):
        model(x, [label])
    handle.remove()
    assert not torch.allclose(*corrections)
    neighbours = corrections[0][0, 8, 8] - corrections[0][0, 8, 9]
    assert neighbours.abs() > 1e-4


@pytest.mark.parametrize("strategy", [s for s in Strategy.__args__ if s != "none"])
def test_every_strategy_trains_the_head_and_params_counts_it(tmp_path, kind, strategy):
    official, detail = (build(tmp_path, kind, *more, strategy=strategy) for more in ((), (DETAIL,)))
    own = sum(p.numel() for p in detail.detail_head.parameters())
    assert all(p.requires_grad for p in detail.detail_head.parameters())
    counts = [parameter_counts(model) for model in (official, detail)]
    assert [counts[1][key] - counts[0][key] for key in ("trainable", "total")] == [own, own]
    assert counts[1]["modules"]["detail_head"] == {"trainable": own, "total": own}


def test_without_training_the_head_is_not_trained(tmp_path, kind):
    model = build(tmp_path, kind, DETAIL, strategy="none")
    assert not any(p.requires_grad for p in model.parameters())


@torch.no_grad()
def test_a_weights_file_keeps_the_head_and_merging_keeps_the_masks(tmp_path, kind):
    path = write_weights(tmp_path, kind, overrides=(DETAIL,))
    model, _ = load_trained(path)
    x = torch.randn(1, 3, model.img_size, model.img_size)
    assert model.detail_head.correction.weight.abs().sum() > 0
    torch.testing.assert_close(load_model(path).model(x, ["Vein"]), model(x, ["Vein"]), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_full_and_onnx_exports_keep_the_head_and_sam_refuses_it(tmp_path, kind, capsys):
    path = write_weights(tmp_path, kind, overrides=(DETAIL,))
    export = ["export", "--checkpoint", str(path), "--output"]
    assert main([*export, str(tmp_path / "full.safetensors"), "--format", "full"]) == 0
    model, full = load_model(path).model, load_model(tmp_path / "full.safetensors").model
    x = torch.randn(1, 3, model.img_size, model.img_size)
    assert torch.equal(full(x, ["Vein"]), model(x, ["Vein"]))
    pytest.importorskip("onnx")
    assert main([*export, str(tmp_path / "m.onnx"), "--format", "onnx"]) == 0  # checked against PyTorch on the way
    capsys.readouterr()
    assert main([*export, str(tmp_path / "sam.safetensors"), "--format", "sam"]) == 1
    assert "has a detail head (sam.mask_head), which the official code cannot hold" in capsys.readouterr().err
    assert not (tmp_path / "sam.safetensors").exists()


@torch.no_grad()
def test_a_base_passes_its_head_on_to_a_model_that_has_one(tmp_path, kind):
    (tmp_path / "base").mkdir()
    base = write_weights(tmp_path / "base", kind, overrides=(DETAIL,))
    source, _ = load_trained(base)
    overrides = ("sam.weights=pretrained", f"pretrained_path={base}")
    official, detail = build(tmp_path, kind, *overrides), build(tmp_path, kind, *overrides, DETAIL)
    assert official.detail_head is None
    assert torch.equal(detail.detail_head.correction.weight, source.detail_head.correction.weight)


def test_a_network_without_sams_decoder_refuses_the_head(tmp_path, capsys):
    (tmp_path / "m.yaml").write_text("arch: unet\nsam: {mask_head: detail}\n")
    assert main(["params", "--model_config", str(tmp_path / "m.yaml")]) == 2
    assert "sam.mask_head = detail, but unet is not a SAM" in capsys.readouterr().err
