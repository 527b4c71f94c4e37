"""The methods against their papers' formulas, written out in float64."""

import math

import pytest
import torch
from adapted_layers import RANKS, every_kind, make, perturb
from torch import nn

import adapters
from adapters import METHODS, RankRule

ALPHA = 3.0


def matrix(tensor):
    return tensor.detach().flatten(1)


def call(layer, x, weight, bias):
    if isinstance(layer, nn.Conv2d):
        return layer._conv_forward(x, weight.reshape(-1, *layer.weight.shape[1:]), bias)
    return nn.functional.linear(x, weight, bias)


def channels(layer, vector):
    return vector[:, None, None] if isinstance(layer, nn.Conv2d) else vector


def options(method):
    return {"lora_alpha": ALPHA} if "lora_alpha" in METHODS[method].options else {}


def formula(method, plain, p, x, rank=2):
    """The adapted layer's output, from the wrapped layer and the adapter's parameters."""
    W, b = matrix(plain.weight), plain.bias
    scale = ALPHA / math.sqrt(rank) if method == "rslora" else ALPHA / rank
    if method == "ssf":
        y = channels(plain, p["scale"]) * call(plain, x, W, b)
        return y + channels(plain, p["shift"]) if "shift" in p else y
    if method == "adaptformer":
        hidden = torch.clamp(call(plain, x, p["down"], p["down_bias"]), min=0)
        up = p["up"][:, :, None, None] if isinstance(plain, nn.Conv2d) else p["up"]
        operation = nn.functional.conv2d if isinstance(plain, nn.Conv2d) else nn.functional.linear
        return call(plain, x, W, b) + 0.1 * operation(hidden, up, p["up_bias"])
    U, s, Vh = torch.linalg.svd(W, full_matrices=False)
    rest = {"pissa": slice(rank, None), "milora": slice(0, -rank), "kasa": slice(0, -rank)}.get(method, slice(None))
    frozen = U[:, rest] @ torch.diag(s[rest]) @ Vh[rest]
    middle = torch.diag(p["sigma"]) if method == "kasa" else torch.eye(rank, dtype=W.dtype)
    weight = frozen + scale * p["up"] @ middle @ p["down"]
    if method == "dora":
        norms = torch.stack([row.square().sum().sqrt() for row in weight])
        weight = torch.diag(p["magnitude"] / norms) @ weight
    return call(plain, x, weight, b)


NEW = [name for name in METHODS if name not in ("salt", "svd")]


@pytest.mark.parametrize("method", NEW)
@every_kind
def test_output_and_merged_output_are_the_formulas(kind, method):
    plain, adapted, x = make(kind, method, **options(method))
    perturb(adapted)
    parameters = {key: p.detach() for key, p in adapted[0].adapter_parameters().items()}
    expected = formula(method, plain[0], parameters, x)
    for training, grad in ((True, True), (False, True), (False, False)):
        with torch.set_grad_enabled(grad):
            assert torch.allclose(adapted.train(training)(x), expected, atol=1e-10)


@pytest.mark.parametrize("method", [name for name in NEW if name != "dora"])  # whose norms are constants in gradients
@every_kind
def test_gradients_are_the_formulas(kind, method):
    plain, adapted, x = make(kind, method, **options(method))
    perturb(adapted)
    own = adapted[0].adapter_parameters()
    copies = {key: p.detach().clone().requires_grad_() for key, p in own.items()}
    x = x.requires_grad_()
    found = torch.autograd.grad(adapted.train()(x).square().sum(), [x, *own.values()])
    wanted = torch.autograd.grad(formula(method, plain[0], copies, x).square().sum(), [x, *copies.values()])
    for first, second in zip(found, wanted, strict=True):
        assert torch.allclose(first, second, atol=1e-8)


@pytest.mark.parametrize("method", ["pissa", "milora"])
@pytest.mark.parametrize("alpha", [None, ALPHA])
def test_pissa_starts_as_the_first_and_milora_as_the_last_singular_directions(method, alpha):
    plain, adapted, _ = make("conv3x3", method, lora_alpha=alpha)
    U, s, Vh = torch.linalg.svd(matrix(plain[0].weight), full_matrices=False)
    part = slice(0, 2) if method == "pissa" else slice(-2, None)
    layer = adapted[0]
    scale = 1 if alpha is None else alpha / 2
    assert torch.allclose(scale * layer.up @ layer.down, U[:, part] @ torch.diag(s[part]) @ Vh[part], atol=1e-12)
    for grams in (layer.up.mT @ layer.up, layer.down @ layer.down.mT):  # each factor has the root of the values
        assert torch.allclose(grams, torch.diag(s[part] / scale), atol=1e-12)


def test_kasa_starts_without_the_last_directions_and_regularizes_by_the_paper():
    plain, adapted, x = make("wide", "kasa")
    U, s, Vh = torch.linalg.svd(plain[0].weight.detach(), full_matrices=False)
    start = U[:, :-2] @ torch.diag(s[:-2]) @ Vh[:-2]
    assert torch.allclose(adapted(x), nn.functional.linear(x, start, plain[0].bias), atol=1e-12)
    perturb(adapted)
    up, sigma, down = (adapted[0].get_parameter(name).detach() for name in ("up", "sigma", "down"))
    one = torch.eye(2, dtype=torch.float64)
    expected = (
        0.1 * (sigma**2).sum() + ((up.T @ up - one) ** 2).sum().sqrt() + ((down @ down.T - one) ** 2).sum().sqrt()
    )
    assert torch.allclose(adapters.regularization_loss(adapted), expected)


@pytest.mark.parametrize("rank", [1, 4, 16])
def test_rsloras_scale_falls_with_the_root_of_the_rank(rank):
    _, adapted, _ = make("wide", "rslora", ranks=RankRule(r_lora=rank, above_rank="allow"), lora_alpha=8.0)
    assert adapted[0].scale == 8 / math.sqrt(rank)
    _, by_default, _ = make("wide", "rslora", ranks=RankRule(r_lora=rank, above_rank="allow"))
    assert by_default[0].scale == 16 / math.sqrt(rank)


def test_dora_starts_with_the_rows_norms_and_leaves_rows_of_zeros_alone():
    plain, adapted, _ = make("wide", "dora")
    assert torch.allclose(adapted[0].magnitude, plain[0].weight.detach().square().sum(1).sqrt())
    layer = nn.Linear(4, 3)
    with torch.no_grad():
        layer.weight[1] = 0
    model = nn.Sequential(layer)
    expected = layer(torch.ones(1, 4)).detach()
    adapters.inject(model, "dora", ["0"], RANKS)
    out = model(torch.ones(1, 4))
    assert torch.allclose(out, expected)
    out.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in adapters.adapter_parameters(model).values())


@pytest.mark.parametrize("method", ["lora", "rslora", "dora", "kasa"])
def test_down_starts_with_the_stated_spread(method):
    model = nn.Sequential(nn.Linear(4096, 16))
    generator = torch.Generator().manual_seed(0)
    adapters.inject(model, method, ["0"], RankRule(r_lora=8), generator=generator)
    kaiming = 1 / math.sqrt(3 * 4096)  # uniform on +-1 / sqrt(in)
    assert float(model[0].down.detach().std()) == pytest.approx(1 / 8 if method == "lora" else kaiming, rel=0.02)
    assert not model[0].up.any()
