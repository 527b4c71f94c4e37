import os
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import torch
from torch import nn

from networks.baselines import BASELINES, build
from networks.batch_norm import SingleValueBatchNorm
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
# With one output channel, at 512 pixels; the paper prints 6.5M, 91M, 7.8M, 29M, 45M, 43M for the first six.
PARAMETERS = {
    "unet": 6_495_868,
    "unetr": 91_833_569,
    "regunet": 7_827_264,
    "segnet": 29_443_585,
    "deeplabv3plus": 45_669_713,
    "segformer": 43_829_313,
    "unetplusplus": 67_977_873,
    "segresnet": 6_299_073,
    "dynunet": 20_611_713,
    "detail_head": 104_580,
}


def count(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def train_step(name, out_channels, img_size, size):
    """Forward in training mode and backward; checks the shape, and finite gradients of all used parameters."""
    torch.manual_seed(0)
    model = build(name, out_channels, img_size, size)
    for head in model.network.heads if name == "detail_head" else ():  # starts as 0, which passes no gradient on
        nn.init.normal_(head.correction.weight)
    images = torch.randn(1, 3, img_size, img_size)
    logits = model(images)
    assert logits.shape == (1, out_channels, img_size, img_size)
    assert logits.dtype == torch.float32
    nn.functional.binary_cross_entropy_with_logits(logits, (images[:, :1] > 0).float().expand_as(logits)).backward()
    unused = {key for key, p in model.named_parameters() if p.grad is None}
    assert unused == {
        key for key, _ in model.named_parameters() if any(fnmatchcase(key, i) for i in BASELINES[name].unused)
    }
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    moved = sum(bool(p.grad.any()) for p in model.parameters() if p.grad is not None)
    assert moved > len(list(model.parameters())) / 2


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts_are_the_papers_and_need_no_memory(name):
    with torch.device("meta"):
        model = build(name, 1, 512)
    assert all(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
    assert count(model) == PARAMETERS[name] == BASELINES[name].parameters


def test_the_table_holds_the_papers_rows_in_its_order():
    assert list(BASELINES) == list(PARAMETERS)
    titles = [baseline.title for baseline in BASELINES.values()]
    assert titles[:6] == ["U-Net", "UNETR", "RegUNet", "SegNet", "DeepLabV3+", "Segformer"]


def test_only_unetr_has_unused_parameters():
    assert [name for name, baseline in BASELINES.items() if baseline.unused] == ["unetr"]


@pytest.mark.parametrize("name", BASELINES)
def test_nano_size_is_small_on_the_meta_device_too(name):
    with torch.device("meta"):
        model = build(name, 1, 512, "nano")
    assert 100_000 < count(model) < 600_000


@pytest.mark.parametrize("img_size", [300, 512])
@pytest.mark.parametrize("name", BASELINES)
def test_nano_size_trains_on_a_single_image(name, img_size):
    train_step(name, 2, img_size, "nano")


@pytest.mark.parametrize("name", BASELINES)
def test_smallest_images_train_too(name):
    train_step(name, 1, 8, "nano")


@pytest.mark.slow
@pytest.mark.parametrize("name", BASELINES)
def test_paper_size_trains_on_a_single_image(name):
    train_step(name, 1, 300, "paper")


@pytest.mark.parametrize("name", BASELINES)
def test_a_few_steps_learn_a_bright_square(name):
    torch.manual_seed(0)
    model = build(name, 1, 64, "nano")
    images = 0.1 * torch.randn(2, 3, 64, 64)
    images[:, :, 8:32, 24:56] += 2
    mask = (images.mean(1, keepdim=True) > 1).float()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(40):
        loss = nn.functional.binary_cross_entropy_with_logits(model(images), mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    predicted = model(images) > 0
    overlap = 2 * (predicted & (mask > 0)).sum() / (predicted.sum() + mask.sum())
    assert overlap > 0.8


@pytest.mark.parametrize("name", BASELINES)
def test_evaluation_treats_each_image_alone(name):
    torch.manual_seed(0)
    model = build(name, 1, 64, "nano").eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(model(images)[1:], model(images[1:]), atol=1e-4)


def test_deeplabs_state_dict_has_the_librarys_keys():
    import segmentation_models_pytorch as smp

    with torch.device("meta"):
        stock = smp.DeepLabV3Plus("resnet101", encoder_weights=None)
        ours = build("deeplabv3plus", 1, 512).network
    assert list(ours.state_dict()) == list(stock.state_dict())
    assert [type(m) for m in ours.modules()].count(SingleValueBatchNorm) == 1


@pytest.mark.parametrize(
    ("name", "module"),
    [("segformer", "segmentation_models_pytorch"), ("unetr", "einops"), ("unet", "monai.networks.nets")],
)
def test_a_missing_library_is_named_with_its_package(name, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=f"pip install {module.split('.')[0]}, or pip install -r requirements.txt"):
        build(name, 1, 64, "nano")


def test_import_is_quick():
    heavy = "{'monai', 'segmentation_models_pytorch', 'timm', 'einops'}"
    code = f"import sys, networks.baselines.model; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
