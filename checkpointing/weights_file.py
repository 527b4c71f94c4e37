"""The weights file: the trained weights, and as metadata the config and the base weights' hash."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import adapters
from checkpointing.tensor_files import check_tensors, read_tensor_file, write_tensors
from utils.errors import UserError

FORMAT = "salt-weights-1"
_METADATA = ("config", "base_sha256", "epoch")


@dataclass(frozen=True)
class WeightsFile:
    """The content of a weights file.

    Attributes:
        tensors: by the model's names of parameters and buffers.
        metadata: format, config, base_sha256, clip_sha256, epoch.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def trained_state(model: nn.Module, everything: bool = False) -> dict[str, Tensor]:
    """The trained parameters, BatchNorm's statistics, text features and the adapters' fingerprints, on the CPU.

    Args:
        everything: adds the frozen parameters and buffers, for a model that started from random weights.
    """
    parameters = {name: p for name, p in model.named_parameters() if everything or p.requires_grad}
    state = {name: p.detach().cpu().clone() for name, p in parameters.items()}
    state.update(adapters.adapter_state_dict(model))
    if everything:
        state.update({key: tensor.detach().cpu().clone() for key, tensor in _base_tensors(model).items()})
    for name, module in model.named_modules():
        every_buffer = everything or isinstance(module, nn.modules.batchnorm._BatchNorm)
        for key, buffer in module.named_buffers(recurse=False):
            if key not in module._non_persistent_buffers_set if every_buffer else key in _saved_buffers(module):
                state[f"{name}.{key}"] = buffer.detach().cpu().clone()
    return state


def _saved_buffers(module: nn.Module) -> tuple[str, ...]:
    return getattr(module, "saved_buffers", ())


def load_trained_state(model: nn.Module, state: Mapping[str, Tensor], everything: bool = False) -> None:
    """Loads the result of `trained_state` into a model built from the same config.

    Raises:
        UserError: missing or unexpected keys, other shapes, another singular basis. The trained parameters are then
            unchanged.
    """
    adapter_keys = set(adapters.adapter_state_dict(model))
    base = _base_tensors(model) if everything else {}
    target = {**model.state_dict(keep_vars=True), **base}
    wanted = {key for key in trained_state(model, everything) if key not in adapter_keys}
    given = set(state) - adapter_keys
    if wanted != given:
        missing, unexpected = sorted(wanted - given), sorted(given - wanted)
        example = missing[0] if missing else unexpected[0]
        raise UserError(
            f"the weights belong to another architecture: {len(missing)} missing, {len(unexpected)} unexpected keys, "
            f"such as '{example}'"
        )
    for key in sorted(given):
        if state[key].shape != target[key].shape:
            raise UserError(f"'{key}' has shape {tuple(state[key].shape)}, the model needs {tuple(target[key].shape)}")
        if state[key].is_floating_point() != target[key].is_floating_point():
            raise UserError(f"'{key}' is of {state[key].dtype}, the model needs {target[key].dtype}")
    with torch.no_grad():
        for key in base:  # before the adapters, which check that they fit their base
            base[key].copy_(state[key])
    try:
        adapters.load_adapter_state_dict(model, {key: state[key] for key in adapter_keys & set(state)})
    except adapters.AdapterError as error:
        raise UserError(str(error)) from error
    with torch.no_grad():
        for key in given:
            target[key].copy_(state[key])


def _base_tensors(model: nn.Module) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": tensor
        for name, layer in adapters.adapted_layers(model)
        for key, tensor in layer.base_tensors().items()
    }


def save_weights(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a weights file atomically: safetensors, or torch's format if the name ends in .pth or .pt."""
    metadata = {"format": FORMAT, **metadata}
    write_tensors(path, tensors, metadata, {"tensors": dict(tensors), "metadata": metadata})


def read_weights(path: Path) -> WeightsFile:
    """Reads a weights file without running any code in it.

    Raises:
        UserError: missing, truncated, or not written by this project; or as `check_tensors`.
    """
    weights = as_weights(*read_tensor_file(path))
    if weights is None:
        raise UserError(
            f"{path}: holds weights, but is no checkpoint of this project; base weights go to --pretrained_path"
        )
    tensors, metadata = weights.tensors, weights.metadata
    are_tensors = isinstance(tensors, dict) and all(isinstance(tensor, Tensor) for tensor in tensors.values())
    missing = [key for key in _METADATA if not isinstance(metadata.get(key), str)]
    if missing or not are_tensors or not metadata["epoch"].isdecimal():
        what = f"its metadata lack {missing[0]}" if missing else "its tensors or its epoch are none"
        raise UserError(f"{path}: is a damaged checkpoint, {what}; give another")
    check_tensors(tensors, path)
    return weights


def as_weights(content: Any, metadata: Mapping[str, str]) -> WeightsFile | None:
    """The content that `read_tensor_file` returned as a weights file of this project, or None for any other file."""
    if not metadata and isinstance(content, dict) and set(content) == {"tensors", "metadata"}:
        content, metadata = content["tensors"], content["metadata"]
        metadata = metadata if isinstance(metadata, dict) else {}
    return WeightsFile(content, dict(metadata)) if metadata.get("format") == FORMAT else None
