"""Injection by pattern, what it refuses, counts, and the adapter state."""

import pytest
import torch
from torch import nn

import adapters
from adapters import AdapterError, RankRule


def model(seed=0):
    torch.manual_seed(seed)
    return nn.ModuleDict(
        {
            "a": nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 6)),
            "b": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
        }
    )


RANKS = RankRule(svd_rank_linear=2, svd_rank_conv2d=1, r_lora=3)


@pytest.mark.parametrize("method", ["salt", "svd", "lora"])
def test_only_matching_layers_are_replaced(method):
    m = model()
    names = adapters.inject(m, method, ["a.*", "b.0"], RANKS)
    assert names == ["a.0", "a.2", "b.0"]
    assert [name for name, _ in adapters.adapted_layers(m)] == names
    assert isinstance(m["a"][1], nn.ReLU)
    assert set(adapters.adapter_parameters(m)) == {
        f"{name}.{key}" for name in names for key in m.get_submodule(name).adapter_parameters()
    }


def test_ranks_by_kind_and_pattern():
    m = model()
    rule = RankRule(2, 1, 3, {"a.2": {"svd_rank": 0}, "a.*": {"r_lora": 1}})
    adapters.inject(m, "salt", ["a.*", "b.0"], rule)
    shapes = {name: (layer.alpha.numel(), layer.X.shape[1]) for name, layer in adapters.adapted_layers(m)}
    assert shapes == {"a.0": (2, 1), "a.2": (0, 1), "b.0": (1, 3)}


@pytest.mark.parametrize(
    ("method", "targets", "ranks", "message"),
    [
        ("salt", ["a.*", "c.*"], RANKS, "'c.*' matches no"),
        ("salt", ["b.1"], RANKS, "'b.1' matches no"),
        ("salt", ["a.0"], RankRule(7, 0, 1), "a.0: svd_rank 7 is outside 0..6"),
        ("salt", ["b.0"], RankRule(0, 5, 1), "b.0: svd_rank 5 is outside 0..4"),
        ("lora", ["a.0"], RankRule(0, 0, 7), "a.0: r_lora 7 is outside 0..6"),
        ("salt", ["a.0"], RankRule(0, 0, 1, {"x": {"r_lora": 1}}), "rank pattern 'x' matches no"),
        ("loro", ["a.0"], RANKS, "unknown adapter method 'loro'; known: salt, svd, lora"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(method, targets, ranks, message):
    m = model()
    with pytest.raises(AdapterError) as caught:
        adapters.inject(m, method, targets, ranks)
    assert message in str(caught.value)
    assert not list(adapters.adapted_layers(m))


@pytest.mark.parametrize(
    ("method", "added"), [("salt", 2 * 2 + 2 * 4 * 3 + 2 * 2 + 2 * 4 * 3), ("svd", 24), ("lora", 3 * 26)]
)
def test_counts(method, added):
    m = model()
    plain = sum(p.numel() for p in m.parameters())
    m.requires_grad_(False)
    adapters.inject(m, method, ["a.*"], RANKS)
    assert adapters.count_parameters(m) == (added, plain + added)


def test_counting_needs_no_weights():
    with torch.device("meta"):
        m = model()
    adapters.inject(m, "salt", ["a.*", "b.0"], RANKS)
    reference = model()
    adapters.inject(reference, "salt", ["a.*", "b.0"], RANKS)
    assert adapters.count_parameters(m) == adapters.count_parameters(reference)


def trained(method, seed=1):
    m = model()
    adapters.inject(m, method, ["a.*", "b.0"], RANKS)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in adapters.adapter_parameters(m).values():
            parameter.add_(torch.randn_like(parameter))
    return m.eval()


@pytest.mark.parametrize("method", ["salt", "svd", "lora"])
def test_state_round_trip(method):
    m = trained(method)
    state = adapters.adapter_state_dict(m)
    fresh = trained(method, seed=2)
    x, image = torch.randn(2, 8), torch.randn(1, 3, 5, 5)
    assert not torch.allclose(fresh["a"](x), m["a"](x))
    adapters.load_adapter_state_dict(fresh, state)
    assert torch.equal(fresh["a"](x), m["a"](x))
    assert torch.equal(fresh["b"](image), m["b"](image))


def test_state_that_does_not_fit_is_refused_and_changes_nothing():
    m = trained("salt")
    state = adapters.adapter_state_dict(m)
    fresh = trained("salt", seed=2)
    before = adapters.adapter_state_dict(fresh)
    flipped = {**state, "a.2.fingerprint": -state["a.2.fingerprint"]}
    for bad, message in [
        ({k: v for k, v in state.items() if k != "a.0.X"}, "missing a.0.X"),
        ({**state, "a.0.Z": torch.zeros(1)}, "unexpected a.0.Z"),
        ({**state, "a.0.alpha": torch.zeros(5)}, r"a.0.alpha: the state has shape \(5,\), not \(2,\)"),
        (flipped, "a.2: its singular vectors differ"),
    ]:
        with pytest.raises(AdapterError, match=message):
            adapters.load_adapter_state_dict(fresh, bad)
    after = adapters.adapter_state_dict(fresh)
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_regularization_sums_over_layers():
    m = trained("salt")
    layers = [layer for _, layer in adapters.adapted_layers(m)]
    assert torch.allclose(adapters.regularization_loss(m), sum(layer.regularization() for layer in layers))
    assert adapters.regularization_loss(model()) == 0
