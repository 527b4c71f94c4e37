"""Injects adapters into a model, merges them into its weights, and counts trainable parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from .base import Adaptable, AdaptedLayer, AdapterError, adapted_layers
from .decomposition import Decomposition, decompose
from .ranks import RankRule, Ranks
from .registry import METHODS

# These modules read the weights of their layers without calling the layers' forward.
BYPASSES_FORWARD = (nn.MultiheadAttention, nn.TransformerEncoderLayer)


def inject(
    module: nn.Module, method: str, targets: Sequence[str], ranks: RankRule | None = None, **options: Any
) -> list[str]:
    """Replaces the Linear and Conv2d layers whose names match `targets` with adapted ones, in place.

    Args:
        module: the model; its other parameters are left as they are.
        method: one of `METHODS`, such as "salt".
        targets: name patterns (fnmatch), such as "blocks.*.attn.qkv".
        ranks: which ranks a layer gets; default `RankRule()`.
        options: of the method: the keyword arguments of its class's `build`.

    Returns:
        The names of the adapted layers.

    Raises:
        AdapterError: an unknown method; a pattern that matches no layer, or a layer that its module never calls; a
            rank above min(out, in) of a layer; a rule that does not fit the method, or needs weights where there are
            none (meta device).
    """
    if method not in METHODS:
        raise AdapterError(f"unknown adapter method '{method}'; known: {', '.join(METHODS)}")
    rule = ranks or RankRule()
    layers = _matching_layers(module, targets)
    _check_pattern_used(rule, layers)
    _check_rule(rule, method)
    factors = (
        {name: _factors(rule, name, layer, options) for name, layer in layers.items()} if rule.needs_values else {}
    )
    chosen = {}
    for name, layer in layers.items():
        values = factors[name].s if name in factors else None
        chosen[name] = rule.of(name, isinstance(layer, nn.Conv2d), _full_rank(layer), values)
        _check_ranks(method, name, layer, chosen[name], rule.above_rank == "allow")
    for name, layer in layers.items():
        given = dict(options)
        if name in factors and "decompose" in METHODS[method].options:
            given["decompose"] = lambda _, found=factors[name]: found
        module.set_submodule(name, adapt(name, layer, method, chosen[name], given))
    return list(layers)


def adapt(name: str, layer: Adaptable, method: str, ranks: Ranks, options: Mapping[str, Any]) -> AdaptedLayer:
    """The adapted layer around `layer`, which keeps what it was made with. Raises: AdapterError, with the `name`."""
    try:
        adapted = METHODS[method].layer.build(layer, ranks, **options)
    except AdapterError as error:
        raise AdapterError(f"{name}: {error}") from None
    plain = {key: value for key, value in options.items() if isinstance(value, str | int | float)}
    adapted.recipe = {"method": method, "ranks": asdict(ranks), "options": plain}
    return adapted.train(layer.training)


def _check_rule(rule: RankRule, method: str) -> None:
    if rule.choice != "fixed" and "svd_rank" not in METHODS[method].ranks:
        raise AdapterError(f"the rank rule '{rule.choice}' chooses svd_rank, which '{method}' does not use")
    if rule.choice == "prune" and not METHODS[method].prunable:
        raise AdapterError(f"the ranks of '{method}' cannot be pruned")


def _factors(rule: RankRule, name: str, layer: Adaptable, options: Mapping[str, Any]) -> Decomposition:
    if layer.weight.is_meta:
        raise AdapterError(f"{name}: the rank rule '{rule.choice}' needs the weights")
    return options.get("decompose", decompose)(layer.weight.detach().flatten(1))


def _matching_layers(module: nn.Module, targets: Sequence[str]) -> dict[str, Adaptable]:
    candidates = {name: m for name, m in module.named_modules() if name and isinstance(m, nn.Linear | nn.Conv2d)}
    matched: dict[str, Adaptable] = {}
    for pattern in targets:
        found = {name: layer for name, layer in candidates.items() if fnmatchcase(name, pattern)}
        if not found:
            raise AdapterError(f"the target pattern '{pattern}' matches no Linear or Conv2d layer")
        matched.update(found)
    for name in matched:
        owner = module.get_submodule(name.rpartition(".")[0])
        if isinstance(owner, BYPASSES_FORWARD):
            raise AdapterError(
                f"{name}: {type(owner).__name__} uses its weight without calling the layer, so it can't be adapted"
            )
    return matched


def _check_pattern_used(rule: RankRule, layers: dict[str, Adaptable]) -> None:
    for pattern in rule.pattern:
        if not any(fnmatchcase(name, pattern) for name in layers):
            raise AdapterError(f"the rank pattern '{pattern}' matches no adapted layer")


def _full_rank(layer: Adaptable) -> int:
    return min(layer.weight.shape[0], layer.weight[0].numel())


def _check_ranks(method: str, name: str, layer: Adaptable, ranks: Ranks, any_r_lora: bool) -> None:
    limit, used = _full_rank(layer), METHODS[method].ranks
    if "svd_rank" in used and not 0 <= ranks.svd_rank <= limit:
        raise AdapterError(f"{name}: svd_rank {ranks.svd_rank} is outside 0..{limit}, the layer's min(out, in)")
    if "r_lora" in used and not (ranks.r_lora >= 0 and (any_r_lora or ranks.r_lora <= limit)):
        raise AdapterError(f"{name}: r_lora {ranks.r_lora} is outside 0..{limit}, the layer's min(out, in)")


def merge(module: nn.Module) -> nn.Module:
    """Replaces every adapted layer with a plain one that has the merged weight, in place. Returns `module`.

    Layers of a method that cannot be merged (`AdaptedLayer.mergeable`) stay.
    """
    for name, layer in [each for each in adapted_layers(module) if each[1].mergeable]:
        module.set_submodule(name, layer.plain_layer().train(layer.training))
    return module


def regularization_loss(module: nn.Module) -> Tensor:
    """The sum of the adapted layers' regularizers (SALT: arXiv 2503.16055, eq. 5), a scalar; 0 without adapters."""
    terms = [layer.regularization() for _, layer in adapted_layers(module)]
    if not terms:
        parameter = next(module.parameters(), None)
        return torch.zeros((), device=None if parameter is None else parameter.device)
    return torch.stack(terms).sum()


def adapter_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that the adapters of `module` declare, by full name."""
    return {
        f"{name}.{key}" if name else key: parameter
        for name, layer in adapted_layers(module)
        for key, parameter in layer.adapter_parameters().items()
    }


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """(trainable, total). A weight that an adapter holds as factors counts once, with the elements of the weight."""
    parameters = list(module.parameters())
    trainable = sum(p.numel() for p in parameters if p.requires_grad)
    frozen = sum(layer.base_numel for _, layer in adapted_layers(module))
    return trainable, sum(p.numel() for p in parameters) + frozen
