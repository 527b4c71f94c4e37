"""Each adapter against the paper's equations in float64, and the invariants that all of them share."""

import copy

import pytest
import torch
from torch import nn

import adapters
from adapters import LoRALayer, RankRule, SALTLayer, SVDLayer

LAYERS = {
    "wide": lambda: nn.Linear(12, 7),
    "tall": lambda: nn.Linear(5, 9, bias=False),
    "square": lambda: nn.Linear(8, 8),
    "conv1x1": lambda: nn.Conv2d(6, 5, 1, bias=False),
    "conv3x3": lambda: nn.Conv2d(3, 8, 3, padding=1),
    "strided": lambda: nn.Conv2d(4, 6, 3, stride=2, padding=2, dilation=2, padding_mode="reflect"),
}
# (rank of the top block, LoRA rank); ranks above a layer's own are cut to it.
SPLITS = [(0, 2), (3, 2), (3, 0), (99, 2)]


def make(kind, method, rank=3, lora_rank=2, dtype=torch.float64, init="normal", seed=0, relu="core"):
    torch.manual_seed(seed)
    layer = LAYERS[kind]().to(dtype)
    limit = min(layer.weight.shape[0], layer.weight[0].numel())
    if method == "salt":
        adapted = SALTLayer(layer, min(rank, limit), lora_rank, init, init_std=0.5, relu=relu)
    elif method == "svd":
        adapted = SVDLayer(layer)
    else:
        adapted = LoRALayer(layer, lora_rank, dropout=0.0)
    return layer, adapted


def perturb(adapted):
    with torch.no_grad():
        for parameter in adapted.adapter_parameters().values():
            parameter.add_(0.4 * torch.randn_like(parameter))


def example(layer, dtype=torch.float64, batch=2):
    shape = (batch, layer.in_channels, 7, 6) if isinstance(layer, nn.Conv2d) else (batch, 4, layer.in_features)
    return torch.randn(shape, dtype=dtype)


def call(layer, x, weight):
    if isinstance(layer, nn.Conv2d):
        return layer._conv_forward(x, weight, layer.bias)
    return nn.functional.linear(x, weight, layer.bias)


def equation(layer, adapted, method):
    """The adapted weight straight from the equations, with numpy-like plainness, in float64."""
    W = layer.weight.detach().double().flatten(1)
    p = {key: value.detach().double() for key, value in adapted.adapter_parameters().items()}
    if method == "lora":
        return (W + p["up"] @ p["down"]).reshape(layer.weight.shape)
    U, s, Vh = torch.linalg.svd(W, full_matrices=False)
    # The sign convention of the canonical decomposition, which X Y lives in.
    sign = torch.stack([column[column.abs().argmax()].sign() for column in U.T])
    U, Vh = U * sign, Vh * sign[:, None]
    r = p["alpha"].numel()
    core = torch.zeros(len(s), len(s), dtype=torch.float64)
    core[:r, :r] = torch.diag(p["alpha"] * s[:r] + p["beta"])
    if method == "salt":
        core[r:, r:] = torch.diag(s[r:]) + p["X"] @ p["Y"]
    relu = getattr(adapted, "relu", "core")
    if relu == "core":
        core = core.clamp(min=0)
    elif relu == "diagonal":
        core = core - torch.diag(core.diag()) + torch.diag(core.diag().clamp(min=0))
    return (U @ core @ Vh).reshape(layer.weight.shape)


CASES = [(kind, "salt", *split) for kind in LAYERS for split in SPLITS]
CASES += [(kind, method, 3, 2) for kind in LAYERS for method in ("svd", "lora")]


@pytest.mark.parametrize(("kind", "method", "rank", "lora_rank"), CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_layer_equals_the_papers_equations(kind, method, rank, lora_rank, dtype):
    layer, adapted = make(kind, method, rank, lora_rank, dtype)
    perturb(adapted)
    x = example(layer, dtype)
    expected = call(copy.deepcopy(layer).double(), x.double(), equation(layer, adapted, method))
    adapted.eval()
    for merged in (False, True):
        with torch.set_grad_enabled(not merged):
            assert torch.allclose(adapted(x).double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("kind", "method", "rank", "lora_rank"), CASES)
def test_both_ways_of_computing_agree_in_output_and_gradients(kind, method, rank, lora_rank):
    layer, adapted = make(kind, method, rank, lora_rank)
    if method == "lora":
        pytest.skip("LoRA has one way")
    perturb(adapted)
    x = example(layer).requires_grad_()
    results = []
    for way in (adapted.factorized_forward, lambda x: adapted.apply_weight(x, adapted.merged_weight())):
        out = way(x)
        inputs = [x, *(p for p in adapted.adapter_parameters().values() if p.numel())]
        results.append([out, *torch.autograd.grad(out.square().sum(), inputs)])
    for first, second in zip(*results, strict=True):
        assert torch.allclose(first, second, atol=1e-9)


@pytest.mark.parametrize("relu", ["diagonal", "none"])
@pytest.mark.parametrize("kind", LAYERS)
def test_relu_acts_where_it_is_told_to(kind, relu):
    """By the equations, both ways, in the gradients too; and every kind of element is negative somewhere."""
    layer, adapted = make(kind, "salt", relu=relu)
    perturb(adapted)
    with torch.no_grad():
        adapted.beta[0] = -2 * adapted.s.max()
        adapted.X[0], adapted.Y[:, 0] = 3, -3  # below -s on the diagonal
    x = example(layer).requires_grad_()
    parameters = [x, *adapted.adapter_parameters().values()]
    expected = call(layer, x, equation(layer, adapted, "salt"))
    results = []
    for way in (adapted.factorized_forward, lambda x: adapted.apply_weight(x, adapted.merged_weight())):
        out = way(x)
        assert torch.allclose(out, expected, atol=1e-9)
        results.append(torch.autograd.grad(out.square().sum(), parameters))
    for first, second in zip(*results, strict=True):
        assert torch.allclose(first, second, atol=1e-8)
    block, top = adapted.rest_block(), adapted.top_values()
    assert (block[~torch.eye(len(block), dtype=torch.bool)] < 0).any()
    assert top[0] == 0 if relu == "diagonal" else top[0] < 0
    assert block[0, 0] == 0 if relu == "diagonal" else block[0, 0] < 0


@pytest.mark.parametrize("relu", ["core", "diagonal", "none"])
def test_every_relu_starts_as_the_wrapped_layer(relu):
    layer, adapted = make("square", "salt", init="identity", relu=relu)
    x = example(layer)
    assert torch.allclose(adapted(x), layer(x), atol=1e-9)
    adapted(x).square().sum().backward()
    scale = adapted.Y.grad / adapted.X.detach().T
    assert torch.allclose(scale, scale[:1].expand_as(scale)) == (relu == "core"), "off-diagonal elements take part"


@pytest.mark.parametrize("method", ["salt", "svd", "lora"])
@pytest.mark.parametrize("kind", ["wide", "conv3x3"])
def test_gradients_pass_gradcheck(kind, method):
    layer, adapted = make(kind, method)
    perturb(adapted)
    x = example(layer, batch=1).requires_grad_()
    names = list(adapted.adapter_parameters())

    def output_and_regularizer(x, *values):
        parameters = dict(zip(names, values, strict=True))
        out = torch.func.functional_call(adapted, parameters, (x,))
        return out, regularizer(adapted, parameters)

    values = [p.detach().clone().requires_grad_() for p in adapted.adapter_parameters().values()]
    assert torch.autograd.gradcheck(output_and_regularizer, (x, *values))


def regularizer(adapted, parameters):
    class Asking(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = adapted

        def forward(self):
            return self.layer.regularization()

    return torch.func.functional_call(Asking(), {f"layer.{key}": value for key, value in parameters.items()}, ())


@pytest.mark.parametrize("method", ["salt", "svd", "lora"])
@pytest.mark.parametrize("kind", LAYERS)
def test_start_is_identity(kind, method):
    layer, adapted = make(kind, method, init="identity", dtype=torch.float32)
    x = example(layer, torch.float32)
    assert torch.allclose(adapted(x), call(layer, x, layer.weight), atol=1e-5)
    assert float(adapted.regularization()) == 0.0


def test_normal_start_is_not_identity_and_moves_off_diagonal_elements_at_once():
    layer, adapted = make("square", "salt", init="normal", rank=2)
    x = example(layer)
    assert not torch.allclose(adapted(x), layer(x), atol=1e-3)
    block = adapted.rest_block()
    off_diagonal = block[~torch.eye(len(block), dtype=torch.bool)]
    assert (off_diagonal > 0).any()
    assert (off_diagonal == 0).any(), "ReLU acts on every element of the core"


def test_identity_start_feels_only_the_diagonal_in_its_first_step():
    layer, adapted = make("square", "salt", init="identity", rank=2)
    adapted(example(layer)).square().sum().backward()
    assert adapted.X.grad.abs().max() == 0  # Y is 0
    assert adapted.Y.grad.abs().max() > 0
    # dL/dY = X^T G: where the core's gradient G is diagonal, column j of X^T G is column j of X^T times G_jj.
    scale = adapted.Y.grad / adapted.X.detach().T
    assert torch.allclose(scale, scale[:1].expand_as(scale))
    with torch.no_grad():
        adapted.Y.sub_(0.01 * adapted.Y.grad)
        block = adapted.rest_block()
    assert (block[~torch.eye(len(block), dtype=torch.bool)] > 0).any()


def test_regularizers_are_the_papers():
    _, salt = make("wide", "salt", rank=3)
    perturb(salt)
    s = salt.s[:3]
    expected = (salt.alpha * s + salt.beta - s).square().sum().sqrt() + (salt.X @ salt.Y).square().sum().sqrt()
    assert torch.allclose(salt.regularization(), expected)
    _, svd = make("wide", "svd")
    perturb(svd)
    assert torch.allclose(svd.regularization(), (1 - svd.alpha).norm() + svd.beta.norm())
    _, lora = make("wide", "lora")
    assert lora.regularization() == 0


@pytest.mark.parametrize("method", ["salt", "svd"])
def test_the_regularizer_has_finite_gradients_at_the_start(method):
    _, adapted = make("wide", method, init="identity")
    adapted.regularization().backward()
    gradients = [p.grad for p in adapted.adapter_parameters().values() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("method", ["salt", "svd", "lora"])
def test_only_declared_parameters_move(method):
    layer, adapted = make("conv3x3", method)
    before = {key: value.clone() for key, value in [*adapted.named_parameters(), *adapted.named_buffers()]}
    trainable = [p for p in adapted.parameters() if p.requires_grad]
    assert {id(p) for p in trainable} == {id(p) for p in adapted.adapter_parameters().values()}
    optimizer = torch.optim.SGD(trainable, 0.1)
    for _ in range(2):
        (adapted(example(layer)).square().sum() + adapted.regularization()).backward()
        optimizer.step()
    declared = set(adapted.adapter_parameters())
    for key, value in [*adapted.named_parameters(), *adapted.named_buffers()]:
        assert torch.equal(value, before[key]) != (key in declared), key


@pytest.mark.parametrize("method", ["salt", "svd", "lora"])
def test_merged_weight_is_kept_until_a_parameter_changes(method):
    layer, adapted = make("wide", method)
    x = example(layer)
    adapted.eval()
    calls = []
    original = adapted.merged_weight
    adapted.merged_weight = lambda: calls.append(1) or original()
    with torch.no_grad():
        first = adapted(x)
        assert torch.equal(adapted(x), first)
        assert len(calls) == 1
        perturb(adapted)
        changed = adapted(x)
        assert len(calls) == 2
    assert not torch.allclose(first, changed)
    assert torch.allclose(changed, adapted(x), atol=1e-9)  # with gradients: not from the kept weight


@pytest.mark.parametrize("method", ["salt", "svd", "lora"])
@pytest.mark.parametrize("kind", LAYERS)
def test_merge_gives_a_plain_layer_with_the_same_output(kind, method):
    layer, adapted = make(kind, method)
    perturb(adapted)
    model = nn.Sequential(adapted).eval()
    x = example(layer)
    before = model(x)
    adapters.merge(model)
    assert type(model[0]) is type(layer)
    assert torch.allclose(model(x), before, atol=1e-9)


@pytest.mark.parametrize("method", ["salt", "svd", "lora"])
@pytest.mark.parametrize("kind", ["wide", "conv3x3"])
def test_under_autocast_gradients_keep_the_parameters_precision(kind, method):
    layer, adapted = make(kind, method, dtype=torch.float32)
    perturb(adapted)
    x = example(layer, torch.float32)
    parameters = list(adapted.adapter_parameters().values())
    gradients = []
    for enabled in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            out = adapted._adapted_forward(x)
        assert out.dtype == (torch.bfloat16 if enabled else torch.float32)
        torch.manual_seed(1)
        gradients.append(torch.autograd.grad(out, parameters, torch.randn(out.shape).to(out)))
    for rounded, exact in zip(*gradients, strict=True):
        assert rounded.dtype == torch.float32
        assert (rounded - exact).norm() < 0.05 * exact.norm()


def test_lora_dropout_scales_what_it_keeps():
    torch.manual_seed(0)
    adapted = LoRALayer(nn.Linear(4096, 1, bias=False), 1, dropout=0.25)
    with torch.no_grad():
        adapted.weight.zero_()
        adapted.up.fill_(1)
        adapted.down.fill_(1 / 4096)
    assert adapted(torch.ones(1, 4096)).item() == pytest.approx(1, abs=0.05)


def test_lora_dropout_acts_in_training_only():
    torch.manual_seed(0)
    adapted = LoRALayer(nn.Linear(64, 8), 4, dropout=0.5)
    perturb(adapted)
    x = torch.randn(3, 64)
    assert not torch.equal(adapted(x), adapted(x))
    adapted.eval()
    assert torch.equal(adapted(x), adapted(x))


def test_lora_starts_from_the_stated_spread():
    adapted = LoRALayer(nn.Linear(4096, 16), 8, generator=torch.Generator().manual_seed(0))
    assert float(adapted.down.std()) == pytest.approx(1 / 8, rel=0.02)


def test_grouped_convolutions_take_spectral_adapters_and_refuse_lora():
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 8, 3, groups=2)
    adapted = SALTLayer(layer, 2, 1)
    x = torch.randn(1, 6, 5, 5)
    assert torch.allclose(adapted(x), layer(x), atol=1e-5)
    with pytest.raises(adapters.AdapterError, match="0: LoRA does not adapt grouped convolutions"):
        adapters.inject(nn.Sequential(layer), "lora", ["0"], RankRule(r_lora=1))


@pytest.mark.parametrize("method", ["salt", "svd", "lora"])
def test_moving_to_another_dtype_moves_everything(method):
    layer, adapted = make("conv3x3", method, dtype=torch.float32)
    x = example(layer, torch.float32)
    adapted.eval()
    with torch.no_grad():
        before = adapted(x)
        assert torch.allclose(adapted.double()(x.double()), before.double(), atol=1e-5)


def test_an_average_that_is_written_to_the_data_is_used_in_the_next_evaluation():
    """As other libraries' moving averages write: `.data` has no version that counts up."""
    adapted, x = LoRALayer(nn.Linear(8, 4), 2), torch.randn(3, 8)
    with torch.no_grad():
        before = adapted.eval()(x)
        adapted.train()
        adapted.up.data.copy_(torch.ones(4, 2))
        after = adapted.eval()(x)
        torch.testing.assert_close(after, x @ adapted.merged_weight().T + adapted.bias)
    assert not torch.allclose(before, after)
