"""Activations made again in the backward pass: equal gradients, less kept, nothing left over."""

import gc
import weakref
from contextlib import nullcontext

import torch
from torch import nn

from networks.recompute import computed_again, nothing_remade, remade, remakes
from prompt_adapted_segment_anything import GEOMETRIES, build_image_encoder


def test_a_remade_activation_is_freed_and_made_once_a_backward_pass():
    x, weight = torch.randn(3, 4, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    calls = []

    def make():
        calls.append(torch.is_grad_enabled())
        return [x.exp()]

    gc.disable()  # nothing may wait for the collector
    try:
        y = x.exp()
        with remade([y], make):
            out = nn.functional.linear(y, weight)
        kept = weakref.ref(y.untyped_storage())
        del y
        assert kept() is None
        assert calls == []
        gradients = [torch.autograd.grad(out.sum(), weight, retain_graph=True)[0] for _ in range(2)]
        assert calls == [False, False]
        context = weakref.ref(out)
        del out
        assert context() is None
    finally:
        gc.enable()
    expected = x.exp().sum(0).expand(2, -1)
    assert all(torch.allclose(gradient, expected) for gradient in gradients)


def test_views_of_a_remade_activation_are_restored():
    x, weight = torch.randn(4, 6), torch.randn(3, requires_grad=True)
    y = x * 2
    with remade([y], lambda: [x * 2]):
        out = y[1:3, 1::2] * weight
    (gradient,) = torch.autograd.grad(out.sum(), weight)
    assert torch.equal(gradient, (x * 2)[1:3, 1::2].sum(0))


def test_a_result_is_written_again():
    x = torch.randn(2, 3, 4)
    result = x.mT.contiguous().mT.requires_grad_()  # of a layout of its own
    other, written = torch.empty(2, 3, 4), []

    def write(tensor):
        written.append(tensor.stride())
        tensor.copy_(x.exp())

    with remade([other], list, write):
        out = result.exp() - 1  # exp keeps its result, of the shape of `other`
    assert written == []
    (gradient,) = torch.autograd.grad(out.sum(), result)
    assert torch.equal(gradient, x.exp())
    assert written == [out.stride()]


def kept_bytes(encoder, images):
    """Bytes of the activations that the graph of a forward pass holds."""
    from benchmarks.memory import LiveBytes

    live = LiveBytes()
    with live:
        out = encoder(images)
        gc.collect()
        return live.now, out


def test_blocks_keep_less_and_give_equal_gradients():
    """With everything trained, where most is kept."""
    torch.manual_seed(0)
    encoder = build_image_encoder(GEOMETRIES["nano"], 128)
    images = torch.randn(1, 3, 128, 128)
    found = {}
    for keeping in (nullcontext, nothing_remade):
        with keeping():
            kept, out = kept_bytes(encoder, images)
        found[keeping] = kept, torch.autograd.grad(out.square().sum(), list(encoder.parameters()))
    assert found[nullcontext][0] < 0.8 * found[nothing_remade][0]
    for ours, plain in zip(found[nullcontext][1], found[nothing_remade][1], strict=True):
        assert torch.allclose(ours, plain, rtol=1e-4, atol=1e-6)


def test_a_function_computed_again_keeps_its_inputs_alone():
    """Its dropout falls alike, and in it nothing is remade, in the forward pass or in the backward pass."""
    torch.manual_seed(0)
    weight = torch.randn(4, 4, requires_grad=True)
    x, held, calls = torch.randn(3, 4, requires_grad=True), [], []

    def function(x):
        calls.append(remakes())
        hidden = nn.functional.dropout(x @ weight, 0.5).exp()
        held.append(weakref.ref(hidden.untyped_storage()))
        return hidden.square() @ weight

    state = torch.get_rng_state()
    out = computed_again(function, x)
    assert held[0]() is None
    torch.rand(3)  # other random numbers in between
    gradients = torch.autograd.grad(out.sum(), [x, weight])
    assert calls == [False, False]
    assert remakes()
    torch.set_rng_state(state)
    expected = function(x)
    assert torch.equal(out, expected)
    for found, wanted in zip(gradients, torch.autograd.grad(expected.sum(), [x, weight]), strict=True):
        assert torch.equal(found, wanted)
