"""Ranks from a layer's singular values, against numpy in float64."""

import numpy as np
import pytest
import torch
from torch import nn

import adapters
from adapters import AdapterError, RankRule
from adapters.ranks import energy_rank, stable_rank


def model(seed=0):
    torch.manual_seed(seed)
    m = nn.ModuleDict({"a": nn.Linear(24, 17), "b": nn.Conv2d(3, 12, 3), "c": nn.Linear(9, 9)})
    with torch.no_grad():  # a decaying spectrum, so that the two rules differ
        for layer in m.values():
            layer.weight.mul_(torch.linspace(3, 0.1, len(layer.weight)).reshape(-1, *[1] * (layer.weight.ndim - 1)))
    return m


def of_numpy(weight, choice, share):
    W = weight.detach().double().flatten(1).numpy()
    s = np.linalg.svd(W, compute_uv=False)
    if choice == "stable_rank":
        return int(np.ceil(np.linalg.norm(W, "fro") ** 2 / np.linalg.norm(W, 2) ** 2))
    held = [np.sum(s[:k] ** 2) / np.sum(s**2) for k in range(1, len(s) + 1)]
    return next(k for k, of_k in enumerate(held, start=1) if of_k >= share)


@pytest.mark.parametrize(
    ("choice", "share"), [("energy", 0.3), ("energy", 0.9), ("energy", 0.999), ("stable_rank", 0.9)]
)
def test_ranks_are_those_of_numpy(choice, share):
    m = model()
    expected = {name: of_numpy(layer.weight, choice, share) for name, layer in m.items()}
    adapters.inject(m, "salt", ["a", "b", "c"], RankRule(5, 5, 2, choice=choice, energy=share))
    assert {name: layer.ranks for name, layer in m.items()} == {
        name: {"svd_rank": rank, "r_lora": 2} for name, rank in expected.items()
    }
    assert len({*expected.values()}) > 1
    for layer in m.values():
        assert layer.X.shape == (layer.full_rank - layer.rank, 2)


def test_known_spectra():
    flat = torch.ones(4)
    assert [energy_rank(flat, share) for share in (0.25, 0.26, 0.5, 0.51, 1.0)] == [1, 2, 2, 3, 4]
    assert stable_rank(flat) == 4
    assert stable_rank(torch.tensor([2.0, 1.0, 1.0])) == 2  # 6 / 4
    assert energy_rank(torch.tensor([2.0, 1.0, 0.0]), 1.0) == 2
    assert energy_rank(torch.zeros(3), 0.9) == stable_rank(torch.zeros(3)) == 0
    orthogonal = torch.linalg.qr(torch.randn(7, 7))[0]
    assert stable_rank(torch.linalg.svdvals(orthogonal)) == 7  # not 8 by rounding


def test_a_pattern_is_stronger_than_the_rule():
    m = model()
    adapters.inject(m, "salt", ["a", "c"], RankRule(pattern={"a": {"svd_rank": 1}}, r_lora=2, choice="energy"))
    assert m["a"].ranks == {"svd_rank": 1, "r_lora": 2}
    assert m["c"].ranks["svd_rank"] > 1


def test_a_weight_is_decomposed_once():
    seen = []

    def counting(weight):
        seen.append(weight.shape)
        return adapters.decompose(weight)

    m = model()
    adapters.inject(m, "salt", ["a", "b", "c"], RankRule(r_lora=2, choice="stable_rank"), decompose=counting)
    assert len(seen) == 3


def test_a_state_brings_its_ranks():
    """The ranks follow from weights, which a model without its base file gets from the state alone."""
    m, other = model(), model(seed=1)
    rule = RankRule(r_lora=2, choice="energy", energy=0.7)
    adapters.inject(m, "salt", ["a"], rule)
    adapters.inject(other, "salt", ["a"], RankRule(r_lora=3, choice="energy", energy=0.4))
    assert other["a"].ranks != m["a"].ranks
    with torch.no_grad():
        for parameter in adapters.adapter_parameters(m).values():
            parameter.add_(torch.randn_like(parameter))
        for key, tensor in m["a"].base_tensors().items():
            other["a"].base_tensors()[key].copy_(tensor)
    adapters.load_adapter_state_dict(other, adapters.adapter_state_dict(m))
    assert other["a"].ranks == m["a"].ranks
    assert torch.equal(other["a"].merged_weight(), m["a"].merged_weight())


@pytest.mark.parametrize("method", ["svd", "lora"])
def test_a_method_without_top_values_has_no_rule(method):
    m = model()
    with pytest.raises(AdapterError, match=f"the rank rule 'energy' chooses svd_rank, which '{method}' does not use"):
        adapters.inject(m, method, ["a"], RankRule(r_lora=2, choice="energy"))


def test_a_rule_needs_weights():
    with torch.device("meta"):
        m = model()
    with pytest.raises(AdapterError, match="a: the rank rule 'energy' needs the weights"):
        adapters.inject(m, "salt", ["a"], RankRule(r_lora=2, choice="energy"))
