"""Which way a layer takes: never one that needs more multiplications in a training step than another."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, addmm_flop

from adapters import LoRALayer, SALTLayer, SVDLayer, factorized

TOKENS = (4, 20, 60, 200, 5000)
SHAPES = [(16, 16), (16, 48), (16, 64), (64, 16), (64, 64), (30, 28)]


def counted(function, layer, x):
    """Floating-point operations of products, forward and backward."""
    left_out = {torch.ops.aten.addmm_: lambda *shapes, **_: addmm_flop(*shapes)}  # by torch's counter
    counter = FlopCounterMode(display=False, custom_mapping=left_out)
    with counter:
        function(x).square().sum().backward()
    layer.zero_grad()
    return counter.get_total_flops()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [2, 12, None])
def test_spectral_layers_take_the_cheaper_way(shape, rank):
    chosen = set()
    for tokens in TOKENS:
        x = torch.randn(tokens, shape[0], requires_grad=True)
        linear = nn.Linear(*shape)
        layer = SVDLayer(linear) if rank is None else SALTLayer(linear, rank, 4)
        factors = counted(layer.factorized_forward, layer, x)
        product = counted(lambda x, layer=layer: layer.apply_weight(x, layer.merged_weight()), layer, x)
        assert counted(layer, layer, x) == min(factors, product)
        chosen.add(factors < product)
    assert chosen == {True, False} or shape not in ((16, 16), (64, 64))


@pytest.mark.parametrize("shape", SHAPES)
def test_lora_layers_take_the_cheaper_way(shape, monkeypatch):
    chosen = set()
    rule = factorized._product_is_cheaper
    for tokens in TOKENS:
        for rank in (1, 4, 16, 64):
            x = torch.randn(tokens, shape[0], requires_grad=True)
            layer = LoRALayer(nn.Linear(*shape), rank)
            ways = []
            for product in (False, True):
                monkeypatch.setattr(factorized, "_product_is_cheaper", lambda *_, product=product: product)
                ways.append(counted(layer, layer, x))
            monkeypatch.setattr(factorized, "_product_is_cheaper", rule)
            assert counted(layer, layer, x) == min(ways)
            chosen.add(ways[0] < ways[1])
    assert chosen == {True, False}
