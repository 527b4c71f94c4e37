"""Adapters in a folder of their own: saved, and put on the same base model again."""

import json

import pytest
import torch
from torch import nn

import adapters
from adapters import AdapterError, RankRule

METHODS = list(adapters.METHODS)


def model(seed=0):
    torch.manual_seed(seed)
    return nn.ModuleDict({"a": nn.Linear(8, 6), "b": nn.Conv2d(3, 4, 3), "head": nn.Linear(6, 2)})


def adapted(method, **options):
    m = model()
    m.requires_grad_(False)
    adapters.inject(m, method, ["a"], RankRule(2, 1, 3), **options)
    adapters.inject(m, "svd", ["b"])
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in [*adapters.adapter_parameters(m).values(), *m["head"].parameters()]:
            parameter.add_(torch.randn_like(parameter))
    return m.eval()


def outputs(m):
    torch.manual_seed(2)
    with torch.no_grad():
        return torch.cat([m["head"](m["a"](torch.randn(2, 8))).flatten(), m["b"](torch.randn(1, 3, 5, 5)).flatten()])


@pytest.mark.parametrize("method", METHODS)
def test_saved_adapters_on_the_same_base_are_the_same_model(tmp_path, method):
    m, base = adapted(method), model().eval()
    adapters.save_adapters(m, tmp_path / "x", also=["head.*"])
    assert not torch.allclose(outputs(base), outputs(m))
    assert adapters.load_adapters(base, tmp_path / "x") == ["a", "b"]
    assert torch.equal(outputs(base), outputs(m))
    again = adapted(method)  # with adapters already
    with torch.no_grad():
        again["head"].bias.zero_()
        next(iter(again["a"].adapter_parameters().values())).zero_()
    adapters.load_adapters(again, tmp_path / "x")
    assert torch.equal(outputs(again), outputs(m))


def test_options_and_cut_ranks_come_back(tmp_path):
    m = model()
    adapters.inject(m, "salt", ["a"], RankRule(2, 1, 3, choice="prune"), relu="none")
    with torch.no_grad():
        for parameter in adapters.adapter_parameters(m).values():
            parameter.add_(torch.randn_like(parameter))
    adapters.cut_ranks(m, budget=12)
    adapters.save_adapters(m, tmp_path)
    base = model()
    adapters.load_adapters(base, tmp_path)
    assert base["a"].ranks == m["a"].ranks != {"svd_rank": 2, "r_lora": 3}
    assert base["a"].relu == "none"
    assert torch.equal(base["a"].merged_weight(), m["a"].merged_weight())
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["layers"]["a"]["options"] == {"relu": "none"}


def test_the_file_holds_no_base_weights(tmp_path):
    adapters.save_adapters(adapted("salt"), tmp_path)
    from safetensors.torch import load_file

    keys = set(load_file(tmp_path / "adapter_model.safetensors"))
    assert keys == {
        *(f"a.{key}" for key in ("alpha", "beta", "X", "Y", "fingerprint")),
        "b.alpha",
        "b.beta",
        "b.fingerprint",
    }


def test_another_base_is_refused(tmp_path):
    adapters.save_adapters(adapted("salt"), tmp_path, also=["head.*"])
    other = model(seed=5)
    before = other["head"].weight.clone()
    with pytest.raises(AdapterError, match=r"^a: its singular vectors differ"):
        adapters.load_adapters(other, tmp_path)
    assert torch.equal(other["head"].weight, before)
    smaller = nn.ModuleDict({"a": nn.Linear(8, 6), "head": nn.Linear(6, 2)})
    with pytest.raises(AdapterError, match=r"^b: the model has no Linear or Conv2d layer of this name"):
        adapters.load_adapters(smaller, tmp_path)
    assert not list(adapters.adapted_layers(smaller))
    with pytest.raises(AdapterError, match=r"its 'head.weight' is not that of this model"):
        adapters.load_adapters(nn.ModuleDict({**model(), "head": nn.Linear(6, 3)}), tmp_path)


def test_what_cannot_be_saved_or_read_is_said(tmp_path):
    with pytest.raises(AdapterError, match="has no adapters"):
        adapters.save_adapters(model(), tmp_path)
    with pytest.raises(AdapterError, match=r"the pattern 'tail.\*' matches no"):
        adapters.save_adapters(adapted("lora"), tmp_path, also=["tail.*"])
    assert not list(tmp_path.iterdir())
    with pytest.raises(AdapterError, match=r"adapter_config.json: cannot be read"):
        adapters.load_adapters(model(), tmp_path)
    adapters.save_adapters(adapted("lora"), tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:50])
    with pytest.raises(AdapterError, match=r"adapter_model.safetensors: cannot be read"):
        adapters.load_adapters(model(), tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(AdapterError, match="is not of the format salt-adapters-1"):
        adapters.load_adapters(model(), tmp_path)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("lora", {}), ("rslora", {})),
        (("lora", {"lora_alpha": 1}), ("lora", {"lora_alpha": 2})),
        (("salt", {"relu": "none"}), ("salt", {})),
    ],
)
def test_adapters_of_another_method_or_other_options_are_not_filled(tmp_path, first, second):
    """Their keys and shapes are the same, and the model would compute something else."""
    adapters.save_adapters(adapted(first[0], **first[1]), tmp_path)
    with pytest.raises(AdapterError, match=r"^a: the model's adapter has another method or other options"):
        adapters.load_adapters(adapted(second[0], **second[1]), tmp_path)


def test_options_of_start_and_training_do_not_matter(tmp_path):
    for saved, there in (
        ({"lora_dropout": 0.1}, {}),
        ({"lora_dropout": 0.1}, {"lora_dropout": 0.0}),
        ({}, {"lora_alpha": None}),
    ):
        m = adapted("lora", **saved)
        adapters.save_adapters(m, tmp_path)
        again = adapted("lora", **there)
        with torch.no_grad():
            again["a"].up.zero_()
        adapters.load_adapters(again, tmp_path)
        assert torch.equal(again["a"].up, m["a"].up)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda config: config["layers"]["a"].update(method="later"),
            "its method 'later' is not known to this version",
        ),
        (lambda config: config.pop("also"), "is damaged"),
        (lambda config: config["layers"]["a"].pop("ranks"), "is damaged"),
        (lambda config: config["layers"]["a"].update(ranks={"r": 1}), "is damaged"),
        (lambda config: config.update(layers=[1]), "is damaged"),
    ],
)
def test_a_damaged_or_newer_config_is_named(tmp_path, change, message):
    adapters.save_adapters(adapted("lora"), tmp_path)
    file = tmp_path / "adapter_config.json"
    config = json.loads(file.read_text())
    change(config)
    file.write_text(json.dumps(config))
    with pytest.raises(AdapterError, match=rf"adapter_config\.json: {message}"):
        adapters.load_adapters(model(), tmp_path)
