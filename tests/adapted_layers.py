"""Every adapter method around small layers of every kind, for the tests of adapters/."""

import copy

import pytest
import torch
from torch import nn

import adapters
from adapters import METHODS, RankRule

LAYERS = {
    "wide": lambda: nn.Linear(12, 7),
    "no bias": lambda: nn.Linear(5, 9, bias=False),
    "conv1x1": lambda: nn.Conv2d(6, 5, 1, bias=False),
    "conv3x3": lambda: nn.Conv2d(3, 8, 3, padding=1),
    "strided": lambda: nn.Conv2d(4, 6, 3, stride=2, padding=2, dilation=2, padding_mode="reflect"),
}
RANKS = RankRule(svd_rank_linear=3, svd_rank_conv2d=3, r_lora=2)
# A start that is not the wrapped layer; adapters/kasa.py says why.
OTHER_STARTS = {"kasa"}
every_method = pytest.mark.parametrize("method", METHODS)
every_kind = pytest.mark.parametrize("kind", LAYERS)
two_kinds = pytest.mark.parametrize("kind", ["wide", "conv3x3"])


def make(kind, method, dtype=torch.float64, ranks=RANKS, seed=0, **options):
    """A model of one layer, its adapted copy, and an input; without dropout."""
    torch.manual_seed(seed)
    plain = nn.Sequential(LAYERS[kind]()).to(dtype)
    if "lora_dropout" in METHODS[method].options:
        options = {"lora_dropout": 0.0, **options}
    adapted = copy.deepcopy(plain)
    adapters.inject(adapted, method, ["0"], ranks, **options)
    layer = plain[0]
    shape = (2, layer.in_channels, 7, 6) if isinstance(layer, nn.Conv2d) else (2, 4, layer.in_features)
    return plain, adapted, torch.randn(shape, dtype=dtype)


def perturb(model, spread=0.4):
    with torch.no_grad():
        for parameter in adapters.adapter_parameters(model).values():
            parameter.add_(spread * torch.randn_like(parameter))
