"""Saves and loads the state of the adapters in a model."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .base import AdaptedLayer, AdapterError, adapted_layers


def adapter_state_dict(module: nn.Module) -> dict[str, Tensor]:
    """The adapters' parameters and the fingerprints of their bases, by full name, on the CPU."""
    state: dict[str, Tensor] = {}
    for name, layer in adapted_layers(module):
        for key, tensor in {**layer.adapter_parameters(), **layer.adapter_buffers()}.items():
            state[_join(name, key)] = tensor.detach().cpu().clone()
    return state


def load_adapter_state_dict(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Loads a state of `adapter_state_dict`, strictly. If keys or bases do not fit, nothing changes.

    Layers whose ranks may vary get those of the state, which replaces their parameters where the shapes differ.

    Raises:
        AdapterError: missing or unexpected keys, other shapes, or a basis other than the one the state was trained in.
    """
    layers = dict(adapted_layers(module))
    expected = {_join(name, key) for name, layer in layers.items() for key in _keys(layer)}
    if expected != set(state):
        missing, unexpected = sorted(expected - set(state)), sorted(set(state) - expected)
        raise AdapterError(f"adapter state does not fit: missing {_sample(missing)}, unexpected {_sample(unexpected)}")
    own = {name: {key: state[_join(name, key)] for key in _keys(layer)} for name, layer in layers.items()}
    for name, layer in layers.items():
        if problem := layer.check_buffers(own[name]):
            raise AdapterError(f"{name}: {problem}")
    for name, layer in layers.items():
        layer.take_ranks(own[name])
        _check_shapes(name, layer, own[name])
    with torch.no_grad():
        for name, layer in layers.items():
            for key, parameter in layer.adapter_parameters().items():
                parameter.copy_(own[name][key])


def _check_shapes(name: str, layer: AdaptedLayer, saved: Mapping[str, Tensor]) -> None:
    for key, parameter in layer.adapter_parameters().items():
        if (shape := saved[key].shape) != parameter.shape:
            raise AdapterError(f"{name}.{key}: the state has shape {tuple(shape)}, not {tuple(parameter.shape)}")


def _keys(layer: AdaptedLayer) -> list[str]:
    return [*layer.adapter_parameters(), *layer.adapter_buffers()]


def _join(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _sample(keys: list[str]) -> str:
    return f"{', '.join(keys[:3])}{' ...' if len(keys) > 3 else ''} ({len(keys)})" if keys else "nothing"
