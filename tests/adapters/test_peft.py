"""DoRA, rsLoRA, PiSSA and KaSA against Hugging Face peft, with its parameters in our layers."""

import copy

import pytest
import torch
from torch import nn

import adapters
from adapters import METHODS, RankRule

peft = pytest.importorskip("peft", reason="peft is not installed")
from peft import LoraConfig, inject_adapter_in_model  # noqa: E402
from peft.tuners.lora.config import KasaConfig  # noqa: E402
from peft.tuners.lora.variants import _kasa_layer_regularization_loss  # noqa: E402

LAYERS = {
    "wide": lambda: nn.Linear(12, 7),
    "tall": lambda: nn.Linear(5, 9, bias=False),
    "conv1x1": lambda: nn.Conv2d(6, 5, 1, bias=False),
    "conv3x3": lambda: nn.Conv2d(3, 8, 3, padding=1),
    "strided": lambda: nn.Conv2d(4, 6, 3, stride=2, padding=2),
}
RANK, ALPHA = 3, 4.0
CONFIGS = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "pissa": {"init_lora_weights": "pissa"},
    "kasa": {"kasa_config": KasaConfig()},
}
LINEAR_ALONE = ("pissa", "kasa")  # peft has these for Linear
CASES = [(method, kind) for method in CONFIGS for kind in LAYERS]
CASES = [(method, kind) for method, kind in CASES if method not in LINEAR_ALONE or kind in ("wide", "tall")]


def both(method, kind, dropout=0.0):
    """Ours and peft's model of one layer with the same parameters, as {ours: theirs}, and an input, in float64."""
    torch.manual_seed(0)
    plain = nn.Sequential(LAYERS[kind]())
    ours, theirs = copy.deepcopy(plain).double(), copy.deepcopy(plain)
    options = {"lora_dropout": dropout} if "lora_dropout" in METHODS[method].options else {}
    adapters.inject(ours, method, ["0"], RankRule(r_lora=RANK), lora_alpha=ALPHA, **options)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=dropout, target_modules=["0"], **CONFIGS[method])
    inject_adapter_in_model(config, theirs)  # in float32, in which peft decomposes
    theirs.double()
    layer = theirs[0]
    named = {"down": layer.lora_A["default"].weight, "up": layer.lora_B["default"].weight}
    if method == "dora":
        named["magnitude"] = layer.lora_magnitude_vector["default"].weight
    if method == "kasa":
        named["sigma"] = layer.lora_diag["default"]
    own = ours[0].adapter_parameters()
    assert set(own) == set(named)
    shape = (2, plain[0].in_channels, 7, 6) if isinstance(plain[0], nn.Conv2d) else (2, 4, plain[0].in_features)
    return ours, theirs, {key: (own[key], named[key]) for key in own}, torch.randn(shape, dtype=torch.float64)


def share(parameters, spread=0.3):
    """Moves peft's parameters from their start and copies them to ours."""
    with torch.no_grad():
        for own, their in parameters.values():
            their.add_(spread * torch.randn_like(their))
            own.copy_(their.reshape(own.shape))


@pytest.mark.parametrize(("method", "kind"), CASES)
def test_output_gradients_and_merged_weight_are_pefts(method, kind):
    ours, theirs, parameters, x = both(method, kind)
    share(parameters)
    x = x.requires_grad_()
    out, expected = ours(x), theirs(x)
    assert torch.allclose(out, expected, atol=1e-6)
    direction = torch.randn_like(out)
    found = torch.autograd.grad(out, [x, *(own for own, _ in parameters.values())], direction)
    wanted = torch.autograd.grad(expected, [x, *(their for _, their in parameters.values())], direction)
    assert all(gradient.any() for gradient in found)
    for first, second in zip(found, wanted, strict=True):
        assert torch.allclose(first, second.reshape(first.shape), atol=1e-6)
    theirs[0].merge()
    assert torch.allclose(ours[0].merged_weight(), theirs[0].get_base_layer().weight, atol=1e-6)
    assert torch.allclose(adapters.merge(ours)(x), theirs(x), atol=1e-6)


@pytest.mark.parametrize(("method", "kind"), CASES)
def test_the_start_is_pefts(method, kind):
    """As functions: a decomposition's signs are free, and so are random numbers beside a factor of zero."""
    ours, theirs, parameters, x = both(method, kind)
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)
    own, their = ((pair[which].flatten(1) for pair in (parameters["up"], parameters["down"])) for which in (0, 1))
    product = [up @ down for up, down in (tuple(own), tuple(their))]
    assert torch.allclose(*product, atol=1e-6)
    if method == "dora":
        own, their = parameters["magnitude"]
        assert torch.allclose(own, their.flatten(), atol=1e-6)


@pytest.mark.parametrize("kind", ["wide", "conv3x3"])
def test_doras_dropout_is_pefts(kind):
    ours, theirs, parameters, x = both("dora", kind, dropout=0.5)
    share(parameters)
    outputs = []
    for model in (ours, theirs):
        torch.manual_seed(1)
        outputs.append(model.train()(x))
    assert torch.allclose(*outputs, atol=1e-6)
    assert not torch.allclose(outputs[0], ours.eval()(x), atol=1e-2)


@pytest.mark.parametrize("kind", ["wide", "tall"])
def test_kasas_regularizer_is_pefts(kind):
    ours, theirs, parameters, _ = both("kasa", kind)
    share(parameters)
    found = adapters.regularization_loss(ours)
    expected = _kasa_layer_regularization_loss(theirs[0], "default", beta=1e-4, gamma=1e-3)
    assert torch.allclose(1e-3 * found, expected.double(), atol=1e-6)  # training.reg_multiplier: 1e-3


@pytest.mark.parametrize("method", LINEAR_ALONE)
def test_peft_refuses_convolutions_which_we_adapt(method):
    config = LoraConfig(r=RANK, target_modules=["0"], **CONFIGS[method])
    with pytest.raises(ValueError, match=r"Unknown initialization|unsupported variant"):
        inject_adapter_in_model(config, nn.Sequential(LAYERS["conv3x3"]()))
