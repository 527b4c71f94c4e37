"""Official weights files: every key is accounted for, and what does not fit is named."""

import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from checkpointing.tensor_files import read_state_dict
from prompt_adapted_segment_anything import (
    GEOMETRIES,
    build_image_encoder,
    build_mask_decoder,
    build_prompt_encoder,
    load_sam,
)
from prompt_adapted_segment_anything.load import resize_pos_embed, resize_rel_pos
from utils.errors import UserError


class Sam(nn.Module):
    def __init__(self, img_size=64, attention="official", sam_type="nano"):
        super().__init__()
        geometry = GEOMETRIES[sam_type]
        self.image_encoder = build_image_encoder(geometry, img_size, attention)
        self.prompt_encoder = build_prompt_encoder(geometry, img_size)
        self.mask_decoder = build_mask_decoder(geometry)
        self.extra = nn.Linear(2, 2)


def load_file(model, path):
    return load_sam(model, read_state_dict(path), path)


def official_state(img_size=64, seed=0):
    torch.manual_seed(seed)
    sam = Sam(img_size)
    return {key: torch.randn_like(value) for key, value in sam.state_dict().items() if not key.startswith("extra")}


@pytest.mark.parametrize("wrap", ["plain", "model", "state_dict", "module", "nested"])
def test_every_key_is_loaded_from_every_wrapping(tmp_path, wrap):
    state = official_state()
    file = {
        "plain": state,
        "model": {"model": state, "epoch": 3},
        "state_dict": {"state_dict": state},
        "module": {f"module.{key}": value for key, value in state.items()},
        "nested": {"model": {"state_dict": {f"module.{key}": value for key, value in state.items()}}},
    }[wrap]
    torch.save(file, tmp_path / "sam.pth")
    model = Sam()
    report = load_file(model, tmp_path / "sam.pth")
    assert set(report.loaded) == set(state)
    assert not report.resized
    assert not report.unused
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())


def test_safetensors_in_half_precision(tmp_path):
    state = official_state()
    save_file({key: value.half() for key, value in state.items()}, tmp_path / "sam.safetensors")
    model = Sam()
    load_file(model, tmp_path / "sam.safetensors")
    assert all(torch.equal(model.state_dict()[key], value.half().float()) for key, value in state.items())


@pytest.mark.parametrize("img_size", [32, 128])
def test_positions_are_resized_and_named(tmp_path, img_size):
    state = official_state(64)
    torch.save(state, tmp_path / "sam.pth")
    model = Sam(img_size)
    report = load_file(model, tmp_path / "sam.pth")
    assert set(report.loaded) == set(state)
    blocks = [f"image_encoder.blocks.2.attn.rel_pos_{axis}" for axis in "hw"]
    assert set(report.resized) == {"image_encoder.pos_embed", *blocks}
    assert model.image_encoder.pos_embed.shape[1] == img_size // 8


def test_a_resized_constant_stays_constant_and_a_ramp_a_ramp():
    constant = torch.full((1, 8, 8, 3), 2.5)
    for how in ("bicubic", "avg_pool"):
        assert torch.allclose(resize_pos_embed(constant, (4, 4), how), constant[:, :4, :4])
    ramp = torch.arange(8.0)[None, :, None, None].expand(1, 8, 8, 1)
    assert torch.allclose(resize_pos_embed(ramp, (4, 4), "avg_pool")[0, :, 0, 0], torch.tensor([0.5, 2.5, 4.5, 6.5]))
    long_ramp = torch.arange(32.0)[None, :, None, None].expand(1, 32, 32, 1)
    halved = resize_pos_embed(long_ramp, (16, 16), "bicubic")[0, :, 0, 0]
    assert torch.allclose(halved[4:12], torch.arange(8.5, 24, 2), atol=1e-4)  # away from the borders
    assert torch.allclose(resize_rel_pos(torch.arange(7.0)[:, None], 7)[:, 0], torch.arange(7.0))


def test_released_attention_leaves_relative_positions_and_says_so(tmp_path):
    state = official_state()
    torch.save(state, tmp_path / "sam.pth")
    report = load_file(Sam(attention="released"), tmp_path / "sam.pth")
    assert set(report.unused) == {key for key in state if ".rel_pos_" in key}
    assert set(report.loaded) | set(report.unused) == set(state)
    assert "8 not used (relative positions, encoder_attention: released)" in str(report)


def bad_file(tmp_path, kind):
    path = tmp_path / "sam.pth"
    state = official_state()
    if kind == "missing key":
        del state["mask_decoder.iou_token.weight"]
    elif kind == "unexpected key":
        state["image_encoder.adapter"] = torch.zeros(1)
    elif kind == "other shape":
        state["mask_decoder.iou_token.weight"] = torch.zeros(1, 3)
    elif kind == "no sam":
        state = {"fc.weight": torch.zeros(2)}
    elif kind == "no tensors":
        state = {"epoch": 3}
    elif kind == "other size":
        with torch.device("meta"):
            state = Sam(512, sam_type="base").state_dict()
        state = {
            key: torch.zeros(()).expand(value.shape) for key, value in state.items() if not key.startswith("extra")
        }
    if kind == "absent":
        return tmp_path / "absent.pth"
    torch.save(state, path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("not weights\n")
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing key", "1 weights are missing, the first is 'mask_decoder.iou_token.weight'"),
        ("unexpected key", "unexpected key 'image_encoder.adapter'"),
        ("other shape", "'mask_decoder.iou_token.weight' has shape (1, 3), the model needs (1, 128)"),
        ("other size", "is a SAM of sam_type 'base', the config asks for 'nano'"),
        ("no sam", "is no SAM weights file (its first key is 'fc.weight')"),
        ("no tensors", "holds no state dict of tensors"),
        ("truncated", "cannot be read as weights"),
        ("empty", "cannot be read as weights"),
        ("text", "refused, it is no plain file of tensors"),
        ("absent", "no such file"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, kind, message):
    path = bad_file(tmp_path, kind)
    model = Sam()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_file(model, path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())


class Attack:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_pickled_code_is_refused_and_never_run(tmp_path):
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"image_encoder.pos_embed": Attack(tmp_path / "ran")}))
    torch.save({"model": Attack(tmp_path / "ran")}, tmp_path / "evil2.pth")
    for name in ("evil.pth", "evil2.pth"):
        with pytest.raises(UserError, match="refused"):
            load_file(Sam(), tmp_path / name)
    assert not (tmp_path / "ran").exists()
