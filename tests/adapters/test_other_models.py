"""docs/extending.md, run as it stands: SALT on models that this project knows nothing of."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import adapters

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "extending.md"
BLOCKS = [block for block in re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL) if "model =" in block]


def made_by(block):
    torch.manual_seed(0)
    names = {}
    exec(block, names)
    return names["model"], names["optimizer"]


def test_there_is_a_vit_a_segformer_and_a_u_net():
    assert [name for block in BLOCKS for name in ("VisionTransformer(", "Segformer(", "Unet(") if name in block] == [
        "VisionTransformer(",
        "Segformer(",
        "Unet(",
    ]


@pytest.mark.parametrize("block", BLOCKS, ids=["vit", "segformer", "unet"])
def test_the_example_trains_and_merges(block):
    assert len(block.splitlines()) < 15
    model, optimizer = made_by(block)
    plain = type(model).__name__
    adapted = dict(adapters.adapted_layers(model))
    assert len(adapted) >= 4
    images = torch.randn(4, 3, 64, 64)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        start = model.eval()(images)
    target = torch.randn_like(start)
    losses = []
    model.train()
    for _ in range(5):
        loss = nn.functional.mse_loss(model(images), target) + 0.01 * adapters.regularization_loss(model)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert all(dict(model.named_parameters())[name].requires_grad for name in moved)
    assert set(adapters.adapter_parameters(model)) <= moved
    with torch.no_grad():
        trained = model.eval()(images)
        assert not torch.allclose(trained, start, atol=1e-3)
        adapters.merge(model)
        torch.testing.assert_close(model(images), trained, atol=1e-4, rtol=1e-4)
    assert not list(adapters.adapted_layers(model))
    assert type(model).__name__ == plain
    assert all(type(model.get_submodule(name)) in (nn.Linear, nn.Conv2d) for name in adapted)


@pytest.mark.parametrize("method", ["salt", "svd", "lora"])
@pytest.mark.parametrize(
    ("model", "pattern", "reader"),
    [
        (nn.ModuleDict({"a": nn.MultiheadAttention(8, 2)}), "a.out_proj", "MultiheadAttention"),
        (nn.ModuleDict({"a": nn.TransformerEncoderLayer(8, 2, 16)}), "a.linear?", "TransformerEncoderLayer"),
    ],
)
def test_layers_that_their_module_never_calls_are_refused(method, model, pattern, reader):
    """LoRA would else train nothing without a word, since torch's fast paths never call the layer."""
    with pytest.raises(
        adapters.AdapterError, match=rf"^a\.(out_proj|linear1): {reader} uses its weight without calling the layer"
    ):
        adapters.inject(model, method, [pattern], adapters.RankRule(r_lora=1))
    assert not list(adapters.adapted_layers(model))
