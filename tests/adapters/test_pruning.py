"""Ranks that training chooses: planted directions are found, the cut's error is the dropped part's, budgets hold."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import adapters
from adapters import RankRule, SALTLayer
from adapters.product import product_svd, shrink_product

PLANTED_VALUES = (0, 3, 4)  # of the 8 scaled ones
PLANTED_TERMS = 2  # of a low-rank update of rank 5


@pytest.fixture
def one_layer():
    """A linear layer 20 -> 16 as SALT 8, with 5 low-rank terms, and W + changes in known singular directions."""
    torch.manual_seed(0)
    m = nn.Sequential(nn.Linear(20, 16, bias=False))
    weight = m[0].weight.detach().clone()
    adapters.inject(m, "salt", ["0"], RankRule(8, 8, 5, choice="prune"), relu="none")
    layer = m[0]
    directions = torch.linalg.qr(torch.randn(8, PLANTED_TERMS))[0], torch.linalg.qr(torch.randn(8, PLANTED_TERMS))[0]
    core = torch.zeros(16, 16)
    for index, change in zip(PLANTED_VALUES, (0.5, -0.4, 0.3), strict=True):
        core[index, index] = change
    core[8:, 8:] = directions[0] @ torch.diag(torch.tensor([0.8, 0.5])) @ directions[1].T
    return m, weight + layer.U @ core @ layer.Vh, directions


def train(m, target, penalty=2.0, steps=600, lr=0.01, period=50):
    """Adam on noisy batches, with a proximal step after each period of its steps."""
    torch.manual_seed(1)
    optimizer = torch.optim.Adam(m.parameters(), lr)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * (1 - step / steps)
        x = torch.randn(32, 20)
        y = x @ target.T + 0.05 * torch.randn(32, 16)
        loss = nn.functional.mse_loss(m(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % period == 0:
            rates = [lr * (1 - i / steps) for i in range(step + 1 - period, step + 1)]
            adapters.proximal_step(m, penalty * math.hypot(*rates))


def test_planted_directions_are_found(one_layer):
    """The cut has no budget: it drops what the proximal steps have set to 0, and keeps all else."""
    m, target, directions = one_layer
    before = (m[0].merged_weight() - target).norm()
    train(m, target)
    cuts = adapters.cut_ranks(m)
    layer = m[0]
    assert tuple(layer.kept.tolist()) == PLANTED_VALUES
    assert layer.ranks == {"svd_rank": len(PLANTED_VALUES), "r_lora": PLANTED_TERMS}
    found = product_svd(layer.X.detach(), layer.Y.detach())
    for planted, basis in zip(directions, (found.L, found.R), strict=True):
        cosines = torch.linalg.svdvals(planted.T @ basis)
        assert cosines.min() > 0.99
    assert cuts["0"].error < 1e-3 * before  # what was at 0 was dropped
    train(m, target, penalty=0.0, steps=300)
    assert (layer.merged_weight() - target).norm() < 0.02 * before


def test_without_the_proximal_step_nothing_is_found(one_layer):
    m, target, _ = one_layer
    train(m, target, penalty=0.0)
    adapters.cut_ranks(m)
    assert m[0].ranks == {"svd_rank": 8, "r_lora": 5}


def test_a_direction_at_zero_comes_back(one_layer):
    """The penalty lets go of what the loss wants: with both factors at 0, X Y could never leave 0."""
    m, target, _ = one_layer
    adapters.proximal_step(m, 1e3)
    assert not m[0].Y.any()
    train(m, target)
    assert adapters.cut_ranks(m)["0"].r_lora == PLANTED_TERMS


def trained(relu="core", bias=True, seed=0):
    torch.manual_seed(seed)
    m = nn.ModuleDict({"a": nn.Linear(14, 10, bias), "b": nn.Conv2d(2, 7, 3), "c": nn.Linear(6, 6)})
    rule = RankRule(4, 3, 3, {"c": {"svd_rank": 6}}, choice="prune")
    adapters.inject(m, "salt", ["a", "b", "c"], rule, relu=relu)
    with torch.no_grad():
        for parameter in adapters.adapter_parameters(m).values():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return m


def weights(m):
    with torch.no_grad():
        return {name: layer.full_precision_weight().double().flatten(1).numpy() for name, layer in m.items()}


def changes(m):
    """The singular values of each layer's change, by numpy in float64: of the scaled values, and of X Y."""
    found = {}
    for name, layer in m.items():
        p = {key: value.detach().double().numpy() for key, value in layer.adapter_parameters().items()}
        s = layer.s.double().numpy()[layer.kept.numpy()]
        found[name] = (p["alpha"] - 1) * s + p["beta"], np.linalg.svd(p["X"] @ p["Y"], compute_uv=False)[:3]
    return found


@pytest.mark.parametrize("relu", ["none", "diagonal", "core"])
def test_the_error_of_a_cut_is_the_norm_of_what_it_drops(relu):
    m = trained(relu)
    before, change = weights(m), changes(m)
    cuts = adapters.cut_ranks(m, budget=60)
    after = weights(m)
    assert sum(p.numel() for p in adapters.adapter_parameters(m).values()) <= 60
    dropped = 0
    for name, cut in cuts.items():
        values, terms = change[name]
        gone = np.sort(np.abs(values))[: len(values) - cut.svd_rank], terms[cut.r_lora :]
        dropped += len(gone[0]) + len(gone[1])
        error = np.linalg.norm(after[name] - before[name])
        assert cut.error == pytest.approx(error, rel=1e-4, abs=1e-5)
        assert cut.norm == pytest.approx(np.linalg.norm(before[name]), rel=1e-5)
        assert cut.bound == pytest.approx(np.sqrt(sum(np.sum(part**2) for part in gone)), rel=1e-5)
        if relu == "none":
            assert cut.error == pytest.approx(cut.bound, rel=1e-4, abs=1e-5)
        assert cut.error <= cut.bound * (1 + 1e-5)
    assert dropped >= 4


def test_the_budget_keeps_the_most_energy_per_parameter():
    m = trained("none")
    entries = []
    for name, (values, terms) in changes(m).items():
        rest = len(m[name].X)
        entries += [(value**2 / 2, 2, name, "svd_rank") for value in values]
        entries += [(term**2 / (2 * rest), 2 * rest, name, "r_lora") for term in terms[:rest]]
    expected = {name: {"svd_rank": 0, "r_lora": 0} for name in m}
    left = 70
    for _, cost, name, key in sorted(entries, reverse=True):
        if cost <= left:
            left -= cost
            expected[name][key] += 1
    cuts = adapters.cut_ranks(m, budget=70)
    assert {name: {"svd_rank": cut.svd_rank, "r_lora": cut.r_lora} for name, cut in cuts.items()} == expected
    assert {name: layer.ranks for name, layer in m.items()} == expected
    assert 70 - sum(p.numel() for p in adapters.adapter_parameters(m).values()) == left


def test_a_cut_layer_trains_saves_loads_and_merges():
    m, fresh = trained(), trained(seed=3)
    with torch.no_grad():  # the same base, other values
        for name, layer in m.items():
            for key, tensor in layer.base_tensors().items():
                fresh[name].base_tensors()[key].copy_(tensor)
            if layer.bias is not None:
                fresh[name].bias.copy_(layer.bias)
    adapters.cut_ranks(m, budget=60)
    optimizer = torch.optim.Adam(adapters.adapter_parameters(m).values(), 0.01)
    before = adapters.adapter_state_dict(m)
    x, image = torch.randn(5, 14), torch.randn(1, 2, 6, 6)
    for _ in range(2):
        loss = m["a"](x).square().mean() + m["b"](image).square().mean() + adapters.regularization_loss(m)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    state = adapters.adapter_state_dict(m)
    moved = {key for key in state if not torch.equal(state[key], before[key])}
    assert {"a.alpha", "a.beta"} <= moved
    adapters.load_adapter_state_dict(fresh, state)
    for layer, reloaded in zip(m.values(), fresh.values(), strict=True):
        assert layer.ranks == reloaded.ranks
        assert torch.equal(layer.merged_weight(), reloaded.merged_weight())
    m.eval()
    with torch.no_grad():
        out = m["a"](x), m["b"](image)
        adapters.merge(m)
        assert torch.allclose(m["a"](x), out[0], atol=1e-6)
        assert torch.allclose(m["b"](image), out[1], atol=1e-6)


def test_fixed_ranks_are_not_cut_and_take_no_others():
    torch.manual_seed(0)
    layer = SALTLayer(nn.Linear(8, 8), 4, 2)
    assert "kept" not in layer.adapter_buffers()
    with pytest.raises(RuntimeError, match="are fixed"):
        layer.cut(torch.ones(4, dtype=torch.bool), 1)


@pytest.mark.parametrize(
    "damage",
    [
        {"a.kept": torch.tensor([0, 1, 2, 4])},  # no longer one of the 4 largest
        {"a.kept": torch.tensor([0.0, 1.0])},
        {"a.alpha": torch.zeros(3)},
        {"a.X": torch.zeros(6)},
        {"a.Y": torch.zeros(2, 6)},
    ],
)
def test_a_state_that_contradicts_itself_is_refused(damage):
    m = trained()
    with pytest.raises(adapters.AdapterError, match=r"^a: the ranks in the state contradict each other"):
        adapters.load_adapter_state_dict(m, {**adapters.adapter_state_dict(m), **damage})


def test_the_proximal_step_against_numpy():
    """Soft thresholding of the changes, and of the singular values of X Y."""
    m = trained("none").double()
    layer, step = m["a"], 0.12
    (values, _), X, s = changes(m)["a"], layer.X.detach().clone(), layer.s[:4].numpy()
    XY = (layer.X @ layer.Y).detach().numpy()
    layer.proximal_step(step)
    lowered = np.sign(values) * np.maximum(np.abs(values) - step * (1 + s), 0)
    assert changes(m)["a"][0] == pytest.approx(lowered, abs=1e-12)
    unchanged = layer.changes() == 0
    assert unchanged.any()
    assert (layer.alpha[unchanged] == 1).all()
    assert (layer.beta[unchanged] == 0).all()
    U, sigma, Vh = np.linalg.svd(XY, full_matrices=False)
    thresholds = step * (np.sqrt(3) + np.sqrt(6)) * np.linalg.norm(X.numpy().T @ U, axis=0)
    kept = np.maximum(sigma - thresholds, 0)[:3]
    assert 0 < (kept > 0).sum() < 3
    assert (layer.X @ layer.Y).detach().numpy() == pytest.approx(U[:, :3] @ np.diag(kept) @ Vh[:3], abs=1e-12)
    assert torch.equal(layer.X, X)


def test_a_product_of_zeros_stays_one():
    X, Y = torch.randn(5, 2), torch.zeros(2, 4)
    shrink_product(X, Y, 0.1)
    assert not Y.any()
    assert X.any()
