"""The protocol `SegmentationModel`, as each of the three kinds of network keeps it."""

import fnmatch

import pytest
import torch
from torch import nn
from weights_files import KINDS

from model import build_model
from utils.config import load_config
from utils.errors import UserError

GROUPS = (
    "always_trained",
    "encoder_biases",
    "decoder_parameters",
    "prompt_parameters",
    "all_used_parameters",
    "uncounted_parameters",
)
SAMS = ("sam", "sam2")


def build(folder, kind, *overrides, seed=0):
    (folder / "m.yaml").write_text(
        f"{KINDS[kind]}prompts: {{text_encoder: learned}}\n"
        f"data: {{root_path: {folder}, label_list: [0, 1, 2], label_names: [Background, Vein, Artery]}}\n"
    )
    strategy = "full" if kind == "unet" else "none"
    config = load_config(folder / "m.yaml", None, list(overrides), strategy)
    torch.manual_seed(seed)
    return build_model(config), config


def images_of(model):
    return torch.randn(2, 3, model.img_size, model.img_size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", KINDS)
def test_forward_is_decode_after_embed_and_gives_logits_of_the_images_size(tmp_path, kind):
    model = build(tmp_path, kind)[0].eval()
    x = images_of(model)
    with torch.no_grad():
        logits = model(x, ["Vein", "Artery"])
        embedded = model.embed(x)
        assert torch.equal(logits, model.decode(embedded, ["Vein", "Artery"]))
        other = model.decode(embedded, ["Artery", "Artery"])
    assert logits.shape == x.shape[:1] + x.shape[2:]
    assert torch.allclose(other[1], logits[1], atol=1e-6)
    assert not torch.allclose(other[0], logits[0], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_label_is_named_with_the_known_ones(tmp_path, kind):
    model, _ = build(tmp_path, kind)
    with pytest.raises(UserError, match="label 'Nerve' is unknown to this model; it knows Vein, Artery"):
        model(images_of(model), ["Vein", "Nerve"])


@pytest.mark.parametrize("kind", KINDS)
def test_every_group_holds_the_models_own_parameters_once(tmp_path, kind):
    model, _ = build(tmp_path, kind)
    own = {id(p) for p in model.parameters()}
    for group in GROUPS:
        ids = [id(p) for p in getattr(model, group)()]
        assert len(set(ids)) == len(ids), group
        assert set(ids) <= own, group
    used = {id(p) for p in model.all_used_parameters()}
    for group in ("always_trained", "decoder_parameters", "prompt_parameters"):
        assert {id(p) for p in getattr(model, group)()} <= used, group


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_used_parameters_get_a_gradient(tmp_path, kind):
    model, _ = build(tmp_path, kind)
    used = {id(p) for p in model.all_used_parameters()}
    model.requires_grad_(True).train()
    model(images_of(model), ["Vein", "Artery"]).square().mean().backward()
    for name, parameter in model.named_parameters():
        if id(parameter) in used:
            assert parameter.grad is not None, name
        else:  # SAM2 computes the three other masks too, but does not return them
            assert parameter.grad is None or not parameter.grad.any(), name


@pytest.mark.parametrize("kind", SAMS)
def test_patterns_of_adapted_layers_match_linear_layers_and_convolutions(tmp_path, kind):
    model, _ = build(tmp_path, kind)
    modules = dict(model.named_modules())
    for method in ("salt", "svd", "lora"):
        for pattern in model.default_targets(method):
            found = [module for name, module in modules.items() if fnmatch.fnmatchcase(name, pattern)]
            assert found, pattern
            assert all(isinstance(module, nn.Linear | nn.Conv2d) for module in found), pattern


@pytest.mark.parametrize("kind", SAMS)
def test_a_models_base_state_is_another_models_base(tmp_path, kind):
    first, config = build(tmp_path, kind)
    second, _ = build(tmp_path, kind, seed=1)
    first.eval(), second.eval()
    x, file = images_of(first), tmp_path / "base.pth"
    with torch.no_grad():
        assert not torch.allclose(first(x, ["Vein"] * 2), second(x, ["Vein"] * 2), atol=1e-4)
        report = second.load_base(first.base_state(), file, config)
        assert set(report.loaded) <= set(second.state_dict())
        assert second.load_own_parts(first)
        assert torch.equal(first(x, ["Vein"] * 2), second(x, ["Vein"] * 2))
    before = second.base_state()
    with pytest.raises(UserError, match=r"base\.pth: \d+ weights are missing, the first is"):
        second.load_base(dict(list(before.items())[:-1]), file, config)


@pytest.mark.parametrize("kind", KINDS)
def test_building_on_the_meta_device_gives_the_same_parameters(tmp_path, kind):
    model, config = build(tmp_path, kind)
    counted = build_model(config, counted_only=True)
    assert all(p.is_meta for p in counted.parameters())
    assert {n: p.shape for n, p in counted.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}
