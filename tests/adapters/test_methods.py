"""What holds for every method of the registry, on every kind of layer."""

import copy
import re

import pytest
import torch
from adapted_layers import LAYERS, OTHER_STARTS, RANKS, every_kind, every_method, make, perturb, two_kinds
from torch import nn

import adapters
from adapters import METHODS, RankRule


@every_method
@every_kind
def test_the_start_is_the_wrapped_layer_where_the_method_says_so(kind, method):
    plain, adapted, x = make(kind, method)
    for training in (True, False):
        same = torch.allclose(adapted.train(training)(x), plain(x), atol=1e-9)
        assert same is (method not in OTHER_STARTS)
    with torch.no_grad():
        assert torch.allclose(adapted(x), plain(x), atol=1e-9) is (method not in OTHER_STARTS)


@every_method
@every_kind
def test_merged_is_unmerged(kind, method):
    plain, adapted, x = make(kind, method)
    perturb(adapted)
    adapted.train()
    trained = adapted(x)
    assert not torch.allclose(trained, plain(x), atol=1e-2)
    adapted.eval()
    with torch.no_grad():
        assert torch.allclose(adapted(x), trained, atol=1e-9)
        layer = adapted[0]
        adapters.merge(adapted)
        assert torch.allclose(adapted(x), trained, atol=1e-9)
    if METHODS[method].layer.mergeable:
        assert type(adapted[0]) is type(plain[0])
        assert (adapted[0].bias is None) == (plain[0].bias is None)
    else:
        assert adapted[0] is layer


@every_method
@two_kinds
def test_gradients_pass_gradcheck(kind, method):
    """Of the input and every parameter, by the training forward; DoRA's norms are constants in its gradient."""
    _, adapted, x = make(kind, method)
    perturb(adapted, 0.2)
    names = list(adapters.adapter_parameters(adapted))
    values = [adapted.get_parameter(name).detach().clone().requires_grad_() for name in names]

    def call(x, *values):
        return torch.func.functional_call(adapted, dict(zip(names, values, strict=True)), (x,))

    x = x[:1].requires_grad_()
    if method == "dora":
        call(x, *values).sum().backward()
        assert all(value.grad is not None and value.grad.any() for value in (x, *values))
    else:
        assert torch.autograd.gradcheck(call, (x, *values))


@every_method
@two_kinds
def test_only_declared_parameters_move_and_all_of_them_do(kind, method):
    _, adapted, x = make(kind, method, salt_init="normal") if method == "salt" else make(kind, method)
    adapted[0].train()
    before = {key: value.clone() for key, value in [*adapted.named_parameters(), *adapted.named_buffers()]}
    trainable = [p for p in adapted.parameters() if p.requires_grad]
    declared = adapters.adapter_parameters(adapted)
    assert {id(p) for p in trainable} == {id(p) for p in declared.values()}
    optimizer = torch.optim.SGD(trainable, 0.01)
    for _ in range(2):
        (adapted(x).square().sum() + adapters.regularization_loss(adapted)).backward()
        optimizer.step()
    for key, value in [*adapted.named_parameters(), *adapted.named_buffers()]:
        assert torch.equal(value, before[key]) != (key in declared), key


@every_method
@every_kind
def test_a_saved_state_gives_the_same_output_beside_the_same_weights_alone(kind, method):
    _, adapted, x = make(kind, method)
    _, other, _ = make(kind, method)
    perturb(adapted)
    perturb(other)
    state = adapters.adapter_state_dict(adapted)
    assert not torch.allclose(other.eval()(x), adapted.eval()(x), atol=1e-3)
    adapters.load_adapter_state_dict(other, state)
    assert torch.equal(other(x), adapted(x))
    if adapted[0].adapter_buffers():
        _, elsewhere, _ = make(kind, method, seed=1)
        with pytest.raises(adapters.AdapterError, match=r"^0: its (singular vectors|frozen part) differ"):
            adapters.load_adapter_state_dict(elsewhere, state)


@every_method
@every_kind
def test_base_tensors_carry_the_wrapped_weight_into_another_model(kind, method):
    """As for a weights file that needs no base file."""
    _, adapted, x = make(kind, method)
    _, other, _ = make(kind, method, seed=1)
    perturb(adapted)
    adapters.adapter_state_dict(other)  # of its own weight, before another takes its place
    with torch.no_grad():
        for key, tensor in adapted[0].base_tensors().items():
            other[0].base_tensors()[key].copy_(tensor)
        if adapted[0].bias is not None:
            other[0].bias.copy_(adapted[0].bias)
    adapters.load_adapter_state_dict(other, adapters.adapter_state_dict(adapted))
    assert torch.equal(other.eval()(x), adapted.eval()(x))


@every_method
@every_kind
def test_counts_are_those_of_the_parameters_and_need_no_weights(kind, method):
    plain, adapted, _ = make(kind, method)
    adapted[0].requires_grad_(False)
    added = adapters.adapter_parameters(adapted).values()
    for parameter in added:
        parameter.requires_grad_(True)
    number = sum(p.numel() for p in added)
    assert adapters.count_parameters(adapted) == (number, number + sum(p.numel() for p in plain.parameters()))
    with torch.device("meta"):
        counted = nn.Sequential(LAYERS[kind]())
        adapters.inject(counted, method, ["0"], RANKS)
        counted.requires_grad_(False)
        for parameter in adapters.adapter_parameters(counted).values():
            parameter.requires_grad_(True)
    assert adapters.count_parameters(counted) == adapters.count_parameters(adapted)


@every_method
@two_kinds
def test_under_autocast_outputs_are_rounded_and_gradients_are_not(kind, method):
    _, adapted, x = make(kind, method, torch.float32)
    perturb(adapted, 0.2)
    gradients = []
    for enabled in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            out = adapted.train()(x)
        assert out.dtype == (torch.bfloat16 if enabled else torch.float32)
        torch.manual_seed(1)
        parameters = list(adapters.adapter_parameters(adapted).values())
        gradients.append(torch.autograd.grad(out, parameters, torch.randn(out.shape).to(out)))
    for rounded, exact in zip(*gradients, strict=True):
        assert rounded.dtype == torch.float32
        assert (rounded - exact).norm() < 0.05 * exact.norm()


@every_method
def test_the_output_at_zero_is_the_layers_for_zeros(method):
    _, adapted, x = make("wide", method)
    perturb(adapted)
    assert torch.allclose(adapted(torch.zeros_like(x))[0, 0], adapted[0].output_at_zero(), atol=1e-12)
    _, adapted, x = make("no bias", method)
    perturb(adapted)
    at_zero = adapted[0].output_at_zero()
    assert torch.allclose(adapted(torch.zeros_like(x)).sum(), x.new_zeros(()) if at_zero is None else 8 * at_zero.sum())


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if "r_lora" in method.ranks])
@two_kinds
def test_a_rank_of_zero_leaves_no_update(kind, method):
    plain, adapted, x = make(kind, method, ranks=RankRule(0, 0, 0))
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            assert torch.allclose(adapted(x), plain(x), atol=1e-9)


@pytest.mark.parametrize("method", [name for name, each in METHODS.items() if "lora_dropout" in each.options])
def test_dropout_acts_in_training_only(method):
    _, adapted, x = make("wide", method, lora_dropout=0.5)
    perturb(adapted)
    assert not torch.equal(adapted.train()(x), adapted(x))
    adapted.eval()
    assert torch.equal(adapted(x), adapted(x))


@every_method
def test_grouped_convolutions_are_adapted_or_refused_by_name(method):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(6, 8, 3, groups=2))
    adapted, x = copy.deepcopy(plain), torch.randn(1, 6, 5, 5)
    if method in ("salt", "svd", "ssf"):
        adapters.inject(adapted, method, ["0"], RANKS)
        assert torch.allclose(adapted(x), plain(x), atol=1e-5)
    else:
        with pytest.raises(adapters.AdapterError, match=r"^0: \w+ does not adapt grouped convolutions$"):
            adapters.inject(adapted, method, ["0"], RANKS)


@pytest.mark.parametrize(
    ("method", "rank", "message"),
    [
        ("kasa", 7, "0: r_lora 7 must be below 7, the layer's min(out, in)"),
        ("pissa", 8, "0: r_lora 8 is outside 0..7, the layer's min(out, in)"),
        ("milora", 8, "0: r_lora 8 is outside 0..7, the layer's min(out, in)"),
    ],
)
def test_ranks_that_the_singular_values_do_not_have_are_refused(method, rank, message):
    with pytest.raises(adapters.AdapterError, match=f"^{re.escape(message)}$"):
        make("wide", method, ranks=RankRule(r_lora=rank, above_rank="allow"))
