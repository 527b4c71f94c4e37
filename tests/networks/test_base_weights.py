"""What --pretrained_path takes: official files at any size, and this project's own weights files."""

import json

import clip_files
import pytest
import torch
from safetensors.torch import save_file
from segment_anything import sam_model_registry
from weights_files import write_weights

import adapters
from checkpointing.tensor_files import read_state_dict
from main import main
from model import build_model, load_trained
from prompt_adapted_segment_anything import GEOMETRIES, SAM_PREFIXES, load_sam
from utils.config import load_config
from utils.errors import UserError
from utils.files import PROJECT_ROOT


@pytest.fixture(scope="module")
def vit_b(tmp_path_factory):
    """A file of exactly the official ViT-B's format, with random values."""
    path = tmp_path_factory.mktemp("weights") / "sam_vit_b_01ec64.pth"
    torch.save(sam_model_registry["vit_b"]().state_dict(), path)
    return path


@pytest.mark.parametrize("img_size", [256, 512, 1024])
def test_an_official_vit_b_file_keeps_every_key_at_every_size(vit_b, tmp_path, img_size):
    (tmp_path / "m.yaml").write_text(f"sam: {{img_size: {img_size}}}\nprompts: {{text_encoder: learned}}\n")
    model = build_model(load_config(tmp_path / "m.yaml", None, ["sam.weights=random"], "none"))
    state = read_state_dict(vit_b)
    report = load_sam(model, state, vit_b)
    assert len(state) == 314
    assert set(report.loaded) == set(state) == {key for key in model.state_dict() if key.startswith(SAM_PREFIXES)}
    assert not report.unused
    positions = 0 if img_size == 1024 else 1 + 2 * len(GEOMETRIES["base"].global_attn_indexes)
    assert len(report.resized) == positions
    for key, value in model.state_dict().items():
        if key in state and key not in report.resized:
            assert torch.equal(value, state[key])


@pytest.mark.parametrize(("sam_type", "found"), [("large", "base"), ("huge", "base"), ("nano", "base")])
def test_another_vit_is_told_by_its_sam_type(vit_b, workspace, capsys, sam_type, found):
    arguments = workspace.train_arguments("run/m.safetensors", "--pretrained_path", str(vit_b))
    overrides = ["--set", f"sam.sam_type={sam_type}", "sam.weights=pretrained"]
    assert main([*arguments, *overrides]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"is a SAM of sam_type '{found}', the config asks for '{sam_type}'; set sam.sam_type: {found}" in error


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("sam_vit_b_01ec64.pth", "python main.py download sam_vit_b fetches it to weights/sam_vit_b_01ec64.pth"),
        ("medsam_vit_b.pth", "python main.py download medsam_vit_b"),
        ("mine.pth", "python main.py download --list names the official ones"),
    ],
)
def test_a_missing_file_names_the_download(workspace, capsys, name, hint):
    arguments = workspace.train_arguments("run/m.safetensors", "--pretrained_path", str(workspace.folder / name))
    assert main([*arguments, "--set", "sam.weights=pretrained"]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{workspace.folder / name}: no such file of weights; {hint}" in error
    assert not (workspace.folder / "run").exists()


@pytest.fixture
def trained(workspace):
    """A LoRA run on nano base weights, all in files."""
    config = load_config(workspace.model_config, None, (), "none")
    base = workspace.folder / "base.safetensors"
    save_file({k: v for k, v in build_model(config).state_dict().items() if k.startswith(SAM_PREFIXES)}, base)
    workspace.model_config.write_text(workspace.model_config.read_text().replace(", weights: random", ""))
    arguments = ["--pretrained_path", str(base), "--training_strategy", "lora"]
    assert main(workspace.train_arguments("first/m.safetensors", *arguments)) == 0
    return workspace.folder / "first" / "m.safetensors"


def test_a_run_starts_from_this_projects_own_weights(workspace, trained):
    """The second model starts as the first one ended, and its own small file rebuilds it."""
    first, _ = load_trained(trained)
    config = load_config(workspace.model_config, workspace.data_config, (), "none", trained)
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = first(x, ["Bar"])
        assert torch.allclose(build_model(config).eval()(x, ["Bar"]), expected, atol=1e-4)
    assert main(workspace.train_arguments("second/m.safetensors", "--pretrained_path", str(trained))) == 0
    second, _ = load_trained(workspace.folder / "second" / "m.safetensors")
    assert second.base_sha256
    assert adapters.adapter_parameters(second)
    results = json.loads((workspace.folder / "second" / "results.json").read_text())
    assert (results["method"], results["weights"]) == ("salt", "m.safetensors")
    with torch.no_grad():
        assert not torch.allclose(second(x, ["Bar"]), expected, atol=1e-4)


def test_own_weights_at_another_size_and_with_other_labels(workspace, trained, draw_dataset, caplog):
    data = workspace.folder / "two"
    draw_dataset(data, {"train": 2, "val": 1, "test": 2}, labels=2)
    workspace.data_config.write_text(
        f"data: {{root_path: {data}, label_list: [0, 1, 2], label_names: [Background, Bar, Rod]}}\n"
    )
    config = load_config(workspace.model_config, workspace.data_config, ["sam.img_size=64"], "salt", trained)
    with caplog.at_level("INFO"):
        model = build_model(config)
    first, _ = load_trained(trained)
    assert "3 of them resized to the image size" in caplog.text
    assert model.image_encoder.pos_embed.shape[1:3] == (8, 8)
    assert torch.equal(model.text_affine[0].weight, first.text_affine[0].weight)
    assert model.text_encoder.embedding.weight.shape[0] == 2


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory):
    return clip_files.write(tmp_path_factory.mktemp("clip"), "safetensors")


def test_clip_prompts_from_the_command_line_and_afterwards_without_clip(
    workspace, clip_file, tmp_path, monkeypatch, capsys
):
    """Two labels train; a second run and an evaluation elsewhere need no CLIP file."""
    monkeypatch.setenv("SALT_CACHE", str(tmp_path / "cache"))
    clip = tmp_path / "clip.safetensors"
    clip.write_bytes(clip_file.read_bytes())
    overrides = ["--set", "prompts.text_encoder=clip", f"prompts.clip_path={clip}", "sam.weights=random"]
    assert main(workspace.train_arguments("a/m.safetensors", *overrides)) == 0
    clip.unlink()
    assert main(workspace.train_arguments("b/m.safetensors", *overrides)) == 0
    first, second = (json.loads((workspace.folder / run / "results.json").read_text()) for run in "ab")
    assert first["text_encoder"] == "clip"
    assert len(first["checkpoint"]["clip_sha256"]) == 64
    assert first["last"]["native"] == second["last"]["native"]
    assert first["total"] > 151_277_313

    monkeypatch.setenv("SALT_CACHE", str(tmp_path / "empty"))  # another machine: the weights file carries the features
    checkpoint = str(workspace.folder / "a" / "m.safetensors")
    assert main(["test", "--checkpoint", checkpoint, "--device", "cpu"]) == 0
    again = json.loads((workspace.folder / "a" / "m_set_test" / "results.json").read_text())
    assert again["native"] == first["last"]["native"]
    assert again["checkpoint"]["clip_sha256"] == first["checkpoint"]["clip_sha256"]
    capsys.readouterr()
    assert main(workspace.train_arguments("c/m.safetensors", *overrides)) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"prompts.clip_path {clip}: no such file" in error
    assert "python main.py download clip_vit_b32" in error
    assert not (workspace.folder / "c").exists()


def test_the_default_prompt_is_clips_from_where_download_puts_it(workspace, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SALT_CACHE", str(tmp_path / "cache"))
    workspace.model_config.write_text("sam: {img_size: 32, sam_type: nano, weights: random}\n")
    assert main(workspace.train_arguments()) == 1
    assert f"prompts.clip_path {PROJECT_ROOT / 'weights' / 'ViT-B-32.pt'}: no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "arch", "message"),
    [
        ("unet", "Prompt Adapted SAM", "is no SAM weights file .its first key is 'network."),
        ("sam2", "Prompt Adapted SAM", "is a SAM2 file, the config asks for SAM; set arch: Prompt Adapted SAM 2"),
        ("sam", "Prompt Adapted SAM 2", "is a SAM file, the config asks for SAM2; set arch: Prompt Adapted SAM"),
        ("sam", "segnet", "this network takes torchvision's vgg16_bn"),
    ],
)
def test_own_weights_of_another_architecture_are_named(tmp_path, kind, arch, message):
    trained = write_weights(tmp_path, kind)
    (tmp_path / "other.yaml").write_text(f"arch: {arch}\nprompts: {{text_encoder: learned}}\nsam: {{img_size: 32}}\n")
    with pytest.raises(UserError, match=rf"m\.safetensors: .*{message}") as caught:
        build_model(load_config(tmp_path / "other.yaml", pretrained_path=trained))
    assert "\n" not in str(caught.value)
