"""Linear layers as chains of factors: output and every gradient against the plain formula."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from adapters.factorized import LowRankLinear, ProductNorm, SpectralLinear, _draw, dropout

TOKENS, IN, OUT, RANK, TOP, LOW = (2, 5), 6, 7, 6, 2, 3
HIGH = 12  # a LoRA rank at which the weight costs less than its factors


def spectral_arguments(dtype=torch.float64, block=True, bias=True, tokens=TOKENS):
    torch.manual_seed(0)
    top = TOP if block else RANK
    return [
        torch.randn(*tokens, IN, dtype=dtype).requires_grad_(),
        torch.randn(OUT, RANK, dtype=dtype),
        torch.randn(RANK, IN, dtype=dtype),
        torch.randn(top, dtype=dtype).requires_grad_(),
        torch.randn(RANK - TOP, RANK - TOP, dtype=dtype).requires_grad_() if block else None,
        torch.randn(OUT, dtype=dtype).requires_grad_() if bias else None,
    ]


def plain_spectral(x, U, Vh, top, block, bias):
    core = torch.diag(top) if block is None else torch.block_diag(torch.diag(top), block)
    return torch.nn.functional.linear(x, U @ core @ Vh, bias)


def low_rank_arguments(dtype=torch.float64, bias=True, rank=LOW):
    torch.manual_seed(0)
    return [
        torch.randn(*TOKENS, IN, dtype=dtype).requires_grad_(),
        torch.randn(OUT, IN, dtype=dtype),
        torch.randn(OUT, dtype=dtype).requires_grad_() if bias else None,
        torch.randn(rank, IN, dtype=dtype).requires_grad_(),
        torch.randn(OUT, rank, dtype=dtype).requires_grad_(),
    ]


def plain_low_rank(x, W, bias, down, up, stay, keep):
    return torch.nn.functional.linear(x, W, bias) + (x * stay / keep) @ down.mT @ up.mT


def with_gradients(out, arguments):
    inputs = [each for each in arguments if each is not None and each.requires_grad]
    torch.manual_seed(1)
    return [out, *torch.autograd.grad(out, inputs, torch.randn(out.shape, dtype=torch.float64).to(out))]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("block", [True, False])
@pytest.mark.parametrize("tokens", [(2, 5), (1, 3)])  # more and fewer than the layer is wide: what the core multiplies
def test_spectral_linear_equals_the_dense_weight(tokens, block, bias):
    arguments = spectral_arguments(block=block, bias=bias, tokens=tokens)
    ours = with_gradients(SpectralLinear.apply(*arguments), arguments)
    plain = with_gradients(plain_spectral(*arguments), arguments)
    for first, second in zip(ours, plain, strict=True):
        assert torch.allclose(first, second, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("keep", [1.0, 0.6])
@pytest.mark.parametrize("rank", [LOW, HIGH])
def test_low_rank_linear_equals_the_plain_formula(rank, keep, bias):
    """Dropout included: the same elements fall in the forward and in the backward pass."""
    arguments = low_rank_arguments(bias=bias, rank=rank)
    torch.manual_seed(2)
    ours = with_gradients(LowRankLinear.apply(*arguments, keep), arguments)
    torch.manual_seed(2)
    stay, rounded = _draw(arguments[0].detach().reshape(-1, IN), keep) if keep < 1 else (torch.ones(10, IN), 1.0)
    plain = with_gradients(plain_low_rank(*arguments, stay.reshape(*TOKENS, IN), rounded), arguments)
    for first, second in zip(ours, plain, strict=True):
        assert torch.allclose(first, second, atol=1e-12)


@pytest.mark.parametrize("layer", ["spectral", "low rank", "high rank"])
def test_under_autocast_gradients_keep_their_parameters_precision(layer):
    if layer == "spectral":
        function, arguments, more = SpectralLinear, spectral_arguments(torch.float32), ()
    else:
        rank = LOW if layer == "low rank" else HIGH
        function, arguments, more = LowRankLinear, low_rank_arguments(torch.float32, rank=rank), (1.0,)
    with torch.autocast("cpu", torch.bfloat16):
        out = function.apply(*arguments, *more)
    assert out.dtype == torch.bfloat16
    rounded = with_gradients(out, arguments)
    exact = with_gradients(function.apply(*arguments, *more), arguments)
    for first, second in zip(rounded[1:], exact[1:], strict=True):
        assert first.dtype == torch.float32
        assert (first - second).norm() < 0.02 * second.norm()


def test_spectral_linear_keeps_no_input_and_no_weight():
    kept = []
    arguments = spectral_arguments()
    with saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        SpectralLinear.apply(*arguments)
    given = {argument.data_ptr() for argument in arguments[1:]}
    made = [tensor for tensor in kept if tensor.data_ptr() not in given]
    assert [tuple(tensor.shape) for tensor in made] == [(10, RANK)]  # Vh x


@pytest.mark.parametrize("rank", [LOW, HIGH])
def test_low_rank_linear_keeps_the_smaller_product_only_where_it_is_one(rank):
    kept = []
    arguments = low_rank_arguments(rank=rank)
    with saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        LowRankLinear.apply(*arguments, 1.0)
    given = {argument.data_ptr() for argument in arguments}
    made = [tuple(tensor.shape) for tensor in kept if tensor.data_ptr() not in given]
    assert made == ([(10, LOW)] if rank == LOW else [])  # down x, and no weight


def test_dropout_scales_what_it_keeps():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 40, 41, requires_grad=True)
    out = dropout(x, 0.75)
    kept = out != 0
    assert abs(kept.double().mean() - 0.75) < 0.02
    assert torch.allclose(out, torch.where(kept, x / 0.75, 0))
    assert torch.allclose(torch.autograd.grad(out.sum(), x)[0], kept / 0.75)
    assert dropout(x, 1.0) is x


def test_dropout_of_almost_everything_stays_finite():
    """One in 65536 elements stays where fewer are asked for."""
    torch.manual_seed(0)
    out = dropout(torch.ones(1000, 1000), 1e-6)
    assert 0 < (out != 0).float().mean() < 1e-4
    assert out.max() == 2**16


@pytest.mark.parametrize("keep", [0.9, 0.5, 0.05])
def test_what_stays_is_drawn_with_its_probability_at_every_place(keep):
    torch.manual_seed(0)
    stay, rounded = _draw(torch.empty(1000, 1001), keep)
    assert abs(rounded - keep) <= 2**-17
    for place in range(4):  # each random word serves four elements
        share = stay.flatten()[place::4].double().mean()
        assert abs(share - keep) < 5 * (keep * (1 - keep) / 250_000) ** 0.5
    neighbours = (stay.flatten()[:-1] & stay.flatten()[1:]).double().mean()
    assert abs(neighbours - keep**2) < 5 * (keep**2 * (1 - keep**2) / 500_000) ** 0.5


def test_product_norm_equals_the_plain_norm_and_keeps_no_product():
    torch.manual_seed(0)
    X, Y = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((5, 3), (3, 5)))
    kept = []
    with saved_tensors_hooks(lambda tensor: kept.append(tuple(tensor.shape)) or tensor, lambda tensor: tensor):
        ours = ProductNorm.apply(X, Y)
    assert sorted(kept) == [(), (3, 5), (5, 3)]
    plain = torch.linalg.matrix_norm(X @ Y)
    pairs = zip(with_gradients(ours, [X, Y]), with_gradients(plain, [X, Y]), strict=True)
    assert all(torch.allclose(first, second, atol=1e-12) for first, second in pairs)


def test_product_norm_has_no_gradient_at_the_start():
    X, Y = torch.randn(5, 3, requires_grad=True), torch.zeros(3, 5, requires_grad=True)
    norm, *gradients = with_gradients(ProductNorm.apply(X, Y), [X, Y])
    assert norm == 0
    assert all(not gradient.any() for gradient in gradients)
