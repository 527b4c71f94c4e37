"""SALT and SVD layers: the order of computing with fewer multiplications in a training step, and what it stores."""

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from adapters import SALTLayer, SVDLayer

TOKENS = (4, 20, 60, 200, 5000)
SHAPES = [(16, 16), (16, 48), (16, 64), (64, 16), (64, 64), (30, 28)]


def counted(function, layer, x):
    """Floating-point operations of products, forward and backward."""
    counter = FlopCounterMode(display=False)
    with counter:
        function(x).square().sum().backward()
    layer.zero_grad()
    return counter.get_total_flops()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [2, 12, None])
def test_a_layer_computes_in_the_cheaper_order(shape, rank):
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


@pytest.mark.parametrize("rank", [2, None])
def test_the_factors_store_no_input_and_no_weight(rank):
    """Of the activations the backward pass needs V^T x alone, since U and V are frozen."""
    layer = SVDLayer(nn.Linear(32, 64)) if rank is None else SALTLayer(nn.Linear(32, 64), rank, 4)
    given = {tensor.untyped_storage().data_ptr() for tensor in (*layer.parameters(), *layer.buffers())}
    saved = {}
    x = torch.randn(5, 32, requires_grad=True)
    with saved_tensors_hooks(lambda t: saved.setdefault(t.untyped_storage().data_ptr(), t), lambda t: t):
        out = layer.factorized_forward(x)
    sizes = [t.untyped_storage().nbytes() // 4 for pointer, t in saved.items() if pointer not in given]
    assert x.untyped_storage().data_ptr() not in saved
    assert out.numel() not in sizes
    assert sizes.count(5 * 32) == 1
    assert 64 * 32 not in sizes
