"""SAM, SAM2 and the baselines go through the same commands: train, test, predict, resume, count."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from main import main
from model import build_model, load_trained
from networks import baselines
from utils.config import load_config
from utils.config.options import BASELINE_ARCHS

SAM2 = ["arch=Prompt Adapted SAM 2", "sam.img_size=64", "ft.svd_ratio=0.2"]


def of_baseline(name):
    return [f"arch={name}", "baseline.size=nano", "sam.img_size=64"]


CASES = {"sam2": SAM2, "unet": of_baseline("unet"), "segformer": of_baseline("segformer")}


def arguments_of(workspace, name, save="run/m.safetensors", *more):
    strategy = ["--training_strategy", "salt" if name == "sam2" else "full"]
    return workspace.train_arguments(save, *strategy, *more, "--set", *CASES[name])


def test_the_schema_and_the_package_know_the_same_baselines():
    assert tuple(baselines.BASELINES) == BASELINE_ARCHS


@pytest.mark.parametrize("name", CASES)
def test_train_test_and_predict(workspace, name):
    assert main(arguments_of(workspace, name)) == 0
    run = workspace.folder / "run"
    results = json.loads((run / "results.json").read_text())
    is_sam = name == "sam2"
    assert results["arch"] == ("Prompt Adapted SAM 2" if is_sam else name)
    assert (results["prompt"], results["text_encoder"]) == (("text", "learned") if is_sam else ("none", None))
    assert results["sam_type"] == "nano"
    assert results["weights"] == "random"
    if not is_sam:
        assert results["percent"] == 100
    assert main(["test", "--checkpoint", str(run / "m.safetensors"), "--device", "cpu"]) == 0
    again = json.loads((run / "m_set_test" / "results.json").read_text())
    assert again["native"]["dice"]["mean"] == pytest.approx(results["last"]["native"]["dice"]["mean"], abs=1e-6)
    images, out = workspace.data / "images", workspace.folder / "out"
    predict = ["--checkpoint", str(run / "m.safetensors"), "--images", str(images), "--output", str(out)]
    assert main(["predict", *predict, "--device", "cpu"]) == 0
    assert np.asarray(Image.open(out / "test0.png")).shape == (48, 40)


def test_a_baseline_has_a_channel_for_each_label(workspace, draw_dataset):
    data = workspace.folder / "two"
    draw_dataset(data, {"train": 2, "val": 1, "test": 2}, labels=2)
    workspace.data_config.write_text(
        f"data: {{root_path: {data}, label_list: [0, 1, 2], label_names: [Background, Bar, Rod]}}\n"
    )
    assert main(arguments_of(workspace, "unet")) == 0
    model, _ = load_trained(workspace.folder / "run" / "m.safetensors")
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        every = model.network(x)
        assert torch.equal(model(x, ["Rod", "Bar"]), torch.stack([every[0, 1], every[1, 0]]))


@pytest.mark.parametrize("strategy", ["salt", "lora", "decoder"])
def test_a_baseline_is_trained_whole(workspace, capsys, strategy):
    arguments = workspace.train_arguments("run/m.safetensors", "--training_strategy", strategy)
    assert main([*arguments, "--set", *of_baseline("unet")]) == 2
    complaint = f"strategy = {strategy}, but unet trains all its weights; give --training_strategy full"
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "trainable"),
    [
        ("unet", 6_495_868),
        ("unetr", 91_833_569),
        ("regunet", 7_827_264),
        ("segnet", 29_443_585),
        ("deeplabv3plus", 45_669_713),
        ("segformer", 43_829_313),
        ("sam2_svd", 293_152),
        ("sam2_lora_4", 902_816),
        ("sam2_lora_256", 44_738_720),
        ("sam2_salt_4", 519_852),
        ("sam2_salt_256", 19_705_116),
        ("salt_256", 9_798_336),
        ("sam_text", 0),
        ("medsam", 0),
    ],
)
def test_the_rows_of_table_1_count_as_the_paper_does(row, trainable, capsys):
    config = Path(__file__).resolve().parents[1] / "configs" / "table1" / f"{row}.yaml"
    assert main(["params", "--model_config", str(config), "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    idle = 18_432 if row == "unetr" else 0  # norms that MONAI builds and never calls
    assert counts["trainable"] == trainable - idle
    if row in BASELINE_ARCHS:
        assert counts["total"] == trainable


def test_full_is_a_baselines_default(tmp_path):
    (tmp_path / "m.yaml").write_text("arch: unet\n")
    assert load_config(tmp_path / "m.yaml").strategy == "full"


@pytest.mark.parametrize("name", BASELINE_ARCHS)
def test_the_idle_parameters_alone_get_no_gradient(tmp_path, name):
    (tmp_path / "m.yaml").write_text("sam: {img_size: 64}\nbaseline: {size: nano}\n")
    model = build_model(load_config(tmp_path / "m.yaml", None, [f"arch={name}"])).train()
    model(torch.randn(2, 3, 64, 64), ["Foreground"] * 2).square().mean().backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())


def test_imagenet_weights_for_the_encoder(workspace, capsys):
    from torchvision.models import vgg16_bn

    path = workspace.folder / "vgg16_bn.pth"
    torch.save(vgg16_bn(weights=None).state_dict(), path)
    config = load_config(
        workspace.model_config, None, ["arch=segnet", "baseline.size=paper", "sam.img_size=64"], "full"
    )
    model = build_model(config.model_copy(update={"pretrained_path": path}))
    assert torch.equal(model.network.network.encoder[0].weight, torch.load(path)["features.0.weight"])
    assert model.base_sha256
    arguments = workspace.train_arguments("run/m.safetensors", "--pretrained_path", str(path))
    overrides = ["--set", *of_baseline("unet"), "strategy=full", "sam.weights=pretrained"]
    assert main([*arguments, *overrides]) == 1
    assert "vgg16_bn.pth: this network has no encoder that takes torchvision's weights" in capsys.readouterr().err


def test_sam2_is_exported_in_its_own_format_with_its_memory(workspace):
    """By the package's own loader, which takes .pt, and as safetensors."""
    from safetensors.torch import load_file
    from sam2.build_sam import build_sam2

    def build(path=None):
        size = ["++model.image_size=64"]
        return build_sam2("configs/sam2.1/sam2.1_hiera_t.yaml", path, device="cpu", hydra_overrides_extra=size)

    torch.manual_seed(0)
    stock = build()
    base = workspace.folder / "base.pt"
    torch.save({"model": stock.state_dict()}, base)
    overrides = ["sam.sam_type=tiny", "sam.weights=pretrained", "training.num_epochs=1", "training.lr=1e-2"]
    workspace.model_config.write_text("prompts: {text_encoder: learned}\n")
    arguments = workspace.train_arguments("run/m.safetensors", "--pretrained_path", str(base))
    assert main([*arguments, "--set", *SAM2, *overrides]) == 0
    checkpoint = workspace.folder / "run" / "m.safetensors"
    trained, _ = load_trained(checkpoint)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        ours, before = trained.embed_image(x), stock.forward_image(x)["backbone_fpn"]
    for suffix in (".pt", ".safetensors"):
        out = workspace.folder / f"out{suffix}"
        assert main(["export", "--checkpoint", str(checkpoint), "--output", str(out)]) == 0
        again = build(str(out)) if suffix == ".pt" else build()
        if suffix == ".safetensors":
            again.load_state_dict(load_file(out), strict=True)
        with torch.no_grad():
            theirs = again.forward_image(x)["backbone_fpn"]
        torch.testing.assert_close(ours[1], theirs[0], atol=1e-4, rtol=1e-4)
        assert not torch.allclose(before[2], theirs[2], atol=1e-3)
