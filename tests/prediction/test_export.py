"""A trained model in other formats: stock packages, onnxruntime, and a machine without the base give the same masks."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from stock_models import stock_sam, stock_sam2

import adapters
from main import main
from model import Prompt_Adapted_SAM, build_model, load_model, load_trained
from prompt_adapted_segment_anything import SAM_PREFIXES, load_sam
from utils.config import load_config

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "using.md"
IMAGE = np.random.default_rng(0).integers(0, 255, (50, 40, 3), dtype=np.uint8)


def export(checkpoint, output, kind, *more):
    return main(["export", "--checkpoint", str(checkpoint), "--output", str(output), "--format", kind, *more])


def python_blocks():
    """The examples of docs/using.md."""
    return re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)


def seen_by_the_model(predictor):
    pixels, _, valid = predictor.transform(IMAGE)
    return pixels[None], valid


@torch.no_grad()
@pytest.mark.parametrize(("kind", "stock"), [("sam", stock_sam), ("sam2", stock_sam2)])
def test_the_stock_package_gives_the_same_masks(make_weights, tmp_path, kind, stock):
    """Loaded strictly; for SAM2 each part is."""
    checkpoint = make_weights(kind)
    assert export(checkpoint, tmp_path / "exported.safetensors", "sam") == 0
    predictor = load_model(checkpoint)
    pixels, _ = seen_by_the_model(predictor)
    theirs, model = stock(load_file(tmp_path / "exported.safetensors"), predictor.model.img_size), predictor.model
    embedded, logits = theirs(pixels, model.text_tokens(["Vein"]))
    ours = model.embed_image(pixels)
    torch.testing.assert_close(embedded, ours if kind == "sam" else ours[0], atol=1e-4, rtol=1e-4)
    expected = model(pixels, ["Vein"]) > 0
    assert 0 < expected.float().mean() < 1
    assert torch.equal(logits > 0, expected)


@pytest.mark.parametrize("kind", ["sam", "hf"])
def test_other_packages_users_are_told_of_native_scale(make_weights, tmp_path, capsys, kind):
    told = []
    for scale in ("native", "fit"):
        checkpoint = make_weights("sam", ("Vein",), (f"data_transforms.scale={scale}",))
        assert export(checkpoint, tmp_path / (f"{scale}.pth" if kind == "sam" else scale), kind) == 0
        told.append("windows of 32 x 32 pixels that are not resized" in capsys.readouterr().out)
    assert told == [True, False]


@pytest.mark.parametrize("kind", ["sam", "sam2"])
def test_a_pth_file_is_what_the_packages_own_loaders_expect(make_weights, tmp_path, kind):
    checkpoint = make_weights(kind)
    for name in ("m.safetensors", "m.pth"):
        assert export(checkpoint, tmp_path / name, "sam") == 0
    content = torch.load(tmp_path / "m.pth", weights_only=True)
    state, expected = content["model"] if kind == "sam2" else content, load_file(tmp_path / "m.safetensors")
    assert set(state) == set(expected)
    assert all(torch.equal(state[key], expected[key]) for key in expected)


def test_positions_are_resized_on_the_way_out(sam_weights, tmp_path, capsys):
    """As for a base file of another size: the stock package opens the file at that size, strictly."""
    own, larger = tmp_path / "own.pth", tmp_path / "larger.pth"
    assert export(sam_weights, own, "sam") == 0
    assert export(sam_weights, larger, "sam", "--img_size", "64") == 0
    state = torch.load(larger, weights_only=True)
    stock_sam(state, 64)
    (tmp_path / "m.yaml").write_text("sam: {sam_type: nano, img_size: 64}\nprompts: {text_encoder: learned}\n")
    expected = Prompt_Adapted_SAM(load_config(tmp_path / "m.yaml"), ["Vein"])
    load_sam(expected, torch.load(own, weights_only=True), own)
    assert state["image_encoder.pos_embed"].shape == (1, 8, 8, 128)
    assert all(torch.equal(value, expected.state_dict()[key]) for key, value in state.items())
    assert "nano is a size of this project alone" in capsys.readouterr().out


def run_printed_lines(text):
    """Runs what a command printed after the line of the file; the names that it sets."""
    names = {}
    exec("\n".join(text.splitlines()[1:]), names)
    return names


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_an_official_file_through_training_to_the_registry(workspace, tmp_path, capsys, monkeypatch):
    """ViT-B: at 1024 by the printed lines, at its own size by those of docs/using.md; all loading is strict."""
    monkeypatch.chdir(tmp_path)
    base, checkpoint = registry_file(tmp_path), tmp_path / "run" / "m.safetensors"
    size = ["sam.sam_type=base", "sam.img_size=64", "sam.weights=pretrained", "training.num_epochs=1", "ft.r_lora=1"]
    arguments = ["--pretrained_path", str(base), "--training_strategy", "lora", "--set", *size, "training.lr=0.01"]
    assert main(workspace.train_arguments("run/m.safetensors", *arguments)) == 0
    capsys.readouterr()
    for name in ("m.pth", "m.safetensors"):
        assert export(checkpoint, Path(name), "sam", "--img_size", "1024") == 0
        sam = run_printed_lines(capsys.readouterr().out)["sam"]
        ours = load_model(checkpoint).model
        assert sam.image_encoder.pos_embed.shape == (1, 64, 64, 768)
        assert torch.equal(sam.image_encoder.blocks[0].attn.qkv.weight, ours.image_encoder.blocks[0].attn.qkv.weight)
    assert export(checkpoint, Path("salt_64.pth"), "sam") == 0
    assert "and this file is for 64: add --img_size 1024" in capsys.readouterr().out
    block = next(block for block in python_blocks() if "sam_model_registry" in block)
    names = {}
    exec(block.replace("512", "64"), names)
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    names["predictor"].set_image(image)
    box = [4, 6, 50, 40]
    masks, _, _ = names["predictor"].predict(box=np.array(box), multimask_output=False, return_logits=True)
    pixels, _, _ = load_model(checkpoint).transform(image)
    with torch.no_grad():
        expected = ours(pixels[None], ["Bar"], torch.tensor([box]).float())
    torch.testing.assert_close(torch.from_numpy(masks), expected, atol=1e-3, rtol=1e-3)


def registry_file(folder):
    """A file of ViT-B's official format with random weights, positions included."""
    from segment_anything import sam_model_registry

    torch.manual_seed(0)
    sam = sam_model_registry["vit_b"]()
    for name, parameter in sam.named_parameters():
        if "pos" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    torch.save(sam.state_dict(), folder / "sam_vit_b.pth")
    return folder / "sam_vit_b.pth"


@pytest.mark.slow
@pytest.mark.parametrize("version", ["sam2", "sam2.1"])
@pytest.mark.usefixtures("no_pictures")
def test_an_official_sam2_file_through_training_to_the_package(workspace, tmp_path, capsys, monkeypatch, version):
    """By the printed lines, with its video memory."""
    from sam2.build_sam import build_sam2

    monkeypatch.chdir(tmp_path)
    stock = build_sam2(f"configs/{version}/{version}_hiera_t.yaml", device="cpu")
    torch.save({"model": stock.state_dict()}, tmp_path / "base.pt")
    size = [
        "arch=Prompt Adapted SAM 2",
        "sam.sam_type=tiny",
        "sam.img_size=64",
        "sam.weights=pretrained",
        "ft.r_lora=1",
    ]
    arguments = ["--pretrained_path", "base.pt", "--training_strategy", "lora", "--set", *size, "training.num_epochs=1"]
    assert main(workspace.train_arguments("run/m.safetensors", *arguments, "ft.r_lora=1")) == 0
    capsys.readouterr()
    for name in ("m.pt", "m.safetensors"):
        assert export(tmp_path / "run" / "m.safetensors", Path(name), "sam") == 0
        names = run_printed_lines(capsys.readouterr().out)
        model = names["sam2"] if name == "m.pt" else names["model"]
        assert model.image_size == 64
        memory = {key: value for key, value in model.state_dict().items() if key.startswith("memory")}
        assert all(torch.equal(value, stock.state_dict()[key]) for key, value in memory.items())
        changed = "image_encoder.trunk.blocks.0.attn.qkv.weight"
        assert not torch.equal(model.state_dict()[changed], stock.state_dict()[changed])


@pytest.mark.parametrize("kind", ["sam", "sam2", "unet"])
def test_the_full_file_stands_alone(make_weights, tmp_path, kind):
    checkpoint = make_weights(kind, ("Vein", "Disc"))
    assert export(checkpoint, tmp_path / "full.safetensors", "full") == 0
    model, config = load_trained(tmp_path / "full.safetensors")
    assert (config.strategy, config.ft.type) == ("none", None)
    assert not list(adapters.adapted_layers(model))
    before, after = load_model(checkpoint), load_model(tmp_path / "full.safetensors")
    assert after.labels == ["Vein", "Disc"]
    assert torch.equal(after.logits(IMAGE), before.logits(IMAGE))
    assert export(tmp_path / "full.safetensors", tmp_path / "half.safetensors", "full", "--half") == 0
    assert (tmp_path / "half.safetensors").stat().st_size < 0.6 * (tmp_path / "full.safetensors").stat().st_size
    half = load_model(tmp_path / "half.safetensors").logits(IMAGE)
    torch.testing.assert_close(half, before.logits(IMAGE), atol=0.05, rtol=0.05)


def test_a_threshold_that_is_still_to_be_chosen_is_the_usual_one_in_the_full_file(make_weights, tmp_path):
    """The epoch of a run that has not ended; the file could not be loaded once."""
    checkpoint = make_weights("sam", ("Vein",), ("evaluation.threshold=val",))
    assert export(checkpoint, tmp_path / "full.safetensors", "full") == 0
    assert load_model(tmp_path / "full.safetensors").threshold.high == 0.5


def test_the_full_file_needs_neither_base_nor_clip(workspace, tmp_path, monkeypatch, capsys):
    import clip_files

    monkeypatch.setenv("SALT_CACHE", str(tmp_path / "cache"))
    clip = clip_files.write(tmp_path, "safetensors")
    config = load_config(workspace.model_config, None, (), "none")
    base = workspace.folder / "base.safetensors"
    save_file({k: v for k, v in build_model(config).state_dict().items() if k.startswith(SAM_PREFIXES)}, base)
    workspace.model_config.write_text(workspace.model_config.read_text().replace(", weights: random", ""))
    more = ["--set", "prompts.text_encoder=clip", f"prompts.clip_path={clip}", "training.num_epochs=1"]
    arguments = workspace.train_arguments("run/m.safetensors", "--pretrained_path", str(base), *more)
    assert main(arguments) == 0
    checkpoint = workspace.folder / "run" / "m.safetensors"
    expected = load_model(checkpoint).logits(IMAGE)
    assert export(checkpoint, tmp_path / "full.safetensors", "full") == 0
    base.unlink()
    clip.unlink()
    monkeypatch.setenv("SALT_CACHE", str(tmp_path / "empty"))
    assert torch.equal(load_model(tmp_path / "full.safetensors").logits(IMAGE), expected)
    assert str(workspace.folder) not in str(load_trained(tmp_path / "full.safetensors")[1].pretrained_path)
    assert main(["test", "--checkpoint", str(tmp_path / "full.safetensors"), "--device", "cpu"]) == 0
    again = json.loads((tmp_path / "full_set_test" / "results.json").read_text())
    results = json.loads((workspace.folder / "run" / "results.json").read_text())
    assert again["native"]["dice"]["mean"] == pytest.approx(results["last"]["native"]["dice"]["mean"], abs=1e-6)
    assert again["weights"] == "base.safetensors"
    assert again["checkpoint"]["clip_sha256"] == results["checkpoint"]["clip_sha256"]
    capsys.readouterr()
    assert main(["test", "--checkpoint", str(checkpoint), "--device", "cpu"]) == 1
    assert "needs its base weights" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["sam", "sam2", "unet"])
def test_onnxruntime_gives_the_same_masks(make_weights, tmp_path, capsys, monkeypatch, kind):
    """To 1e-3 on the model's own input, and with what docs/using.md shows, on numpy and Pillow alone."""
    pytest.importorskip("onnx", reason="the optional package onnx is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="the optional package onnxruntime is not installed")
    from PIL import Image

    odd = {
        "unet": (),
        "sam": ("sam.img_size=80",),
        "sam2": ("sam.img_size=96",),
    }  # neither windows nor kernels divide the grid
    checkpoint = make_weights(kind, ("Vein", "Disc"), odd[kind])
    assert export(checkpoint, tmp_path / "m.onnx", "onnx") == 0
    assert "equal to PyTorch's probabilities to" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    notes = session.get_modelmeta().custom_metadata_map
    assert json.loads(notes["labels"]) == ["Vein", "Disc"]
    assert [json.loads(notes[key]) for key in ("scale", "a_min", "a_max", "threshold")] == ["fit", None, None, 0.5]
    side = int(notes["img_size"])
    predictor = load_model(checkpoint)
    pixels, (height, width) = seen_by_the_model(predictor)
    with torch.no_grad():
        expected = torch.sigmoid(torch.cat([predictor.model(pixels, [label]) for label in predictor.labels])).numpy()
    # The model's own resize, so that what is compared is the file and not two ways of resizing.
    picture = predictor.transform.load(IMAGE)[0] * 255
    canvas = np.empty((1, 3, side, side), np.float32)
    canvas[:] = np.array(json.loads(notes["pixel_mean"]), np.float32)[:, None, None]
    canvas[0, :, :height, :width] = picture
    [found] = session.run(["probabilities"], {"image": canvas})
    assert found.shape == (1, 2, side, side)
    assert np.abs(found[0] - expected).max() < 1e-3
    sure = np.abs(expected - 0.5) > 1e-3
    assert np.array_equal(found[0][sure] > 0.5, expected[sure] > 0.5)

    (tmp_path / "m.onnx").rename(tmp_path / "rose.onnx")
    Image.fromarray(IMAGE).save(tmp_path / "eye.png")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(next(block for block in python_blocks() if "onnxruntime" in block), names)
    assert names["masks"].shape == (2, height, width)
    assert (names["masks"] == (expected[:, :height, :width] > 0.5)).mean() > 0.97  # Pillow's resize rounds to 8 bits


def test_an_onnx_file_that_differs_is_not_written(sam_weights, tmp_path, capsys, monkeypatch):
    pytest.importorskip("onnx", reason="the optional package onnx is not installed")
    from prediction import export_onnx

    monkeypatch.setattr(export_onnx, "_largest_difference", lambda *_: 0.01)
    assert export(sam_weights, tmp_path / "m.onnx", "onnx") == 1
    assert "not written, it differs from PyTorch's probabilities by 1.0e-02" in capsys.readouterr().err
    assert not (tmp_path / "m.onnx").exists()


def test_what_cannot_be_exported_is_named(make_weights, sam_weights, tmp_path, capsys, monkeypatch):
    def refused(checkpoint, name, kind, *more):
        status = export(checkpoint, tmp_path / name, kind, *more)
        assert not (tmp_path / name).exists()
        return status, capsys.readouterr().err

    assert refused(make_weights("unet"), "m.pth", "sam") == (1, Holding("which has no official format"))
    assert refused(sam_weights, "m.pth", "full") == (2, Holding("must be a file name that ends in .safetensors"))
    assert refused(sam_weights, "m.pth", "onnx") == (2, Holding("must be a file name that ends in .onnx"))
    assert refused(sam_weights, "m.onnx", "onnx", "--half") == (
        2,
        Holding("is for the formats sam, hf and full"),
    )
    assert refused(sam_weights, "m.pth", "sam", "--img_size", "100") == (2, Holding("must be a multiple of 16"))
    assert refused(sam_weights, "m.onnx", "onnx", "--img_size", "64") == (2, Holding("is for the formats sam and hf"))
    assert refused(make_weights("sam2"), "m.pt", "sam", "--img_size", "64") == (2, Holding("leave it out"))
    assert refused(sam_weights, "m.pth", "hf") == (2, Holding("must be a folder's name"))
    assert refused(make_weights("unet"), "m", "hf") == (1, Holding("which has no official format"))
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    assert refused(sam_weights, "m.onnx", "onnx") == (1, Holding("pip install onnx"))


class Holding:
    """Equal to every text that holds `part`."""

    def __init__(self, part):
        self.part = part

    def __eq__(self, other):
        return self.part in other

    def __repr__(self):
        return f"... {self.part} ..."
