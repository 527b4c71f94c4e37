"""Saves the adapters of a model to a folder, and puts them on the same base model again."""

import json
import os
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from .base import AdapterError, adapted_layers
from .injection import adapt
from .ranks import Ranks
from .registry import METHODS
from .state import adapter_state_dict, load_adapter_state_dict

CONFIG_FILE = "adapter_config.json"
TENSORS_FILE = "adapter_model.safetensors"
FORMAT = "salt-adapters-1"
_OF_FUNCTION = ("lora_alpha", "relu")


def save_adapters(module: nn.Module, path: str | os.PathLike[str], also: Sequence[str] = ()) -> None:
    """Writes the adapters of `module` to the folder `path`: adapter_config.json and adapter_model.safetensors.

    The base weights are not saved. The fingerprints of the singular bases are, so that `load_adapters` knows the base.

    Args:
        module: a model with adapters that `inject` made.
        path: made where it is missing; files of these names in it are replaced.
        also: name patterns (fnmatch) of parameters and buffers to save as well, such as "head.*": what was trained
            in full.

    Raises:
        AdapterError: no adapters; a pattern that matches nothing.
    """
    layers = {name: layer.recipe for name, layer in adapted_layers(module)}
    if not all(layers.values()) or not layers:
        raise AdapterError("the model has no adapters that `inject` made")
    adapters = adapter_state_dict(module)
    others = {key: tensor for key, tensor in _weights(module).items() if key not in adapters}
    for pattern in also:
        if not any(fnmatchcase(key, pattern) for key in others):
            raise AdapterError(f"the pattern '{pattern}' matches no parameter or buffer")
    others = {key: tensor for key, tensor in others.items() if any(fnmatchcase(key, pattern) for pattern in also)}
    content = json.dumps({"format": FORMAT, "layers": layers, "also": list(others)}, indent=2)
    tensors = {key: tensor.detach().cpu().clone().contiguous() for key, tensor in {**adapters, **others}.items()}
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / TENSORS_FILE, lambda file: file.write_bytes(save(tensors, {"format": "pt"})))
    _replace(folder / CONFIG_FILE, lambda file: file.write_text(content + "\n", encoding="utf-8"))


def load_adapters(module: nn.Module, path: str | os.PathLike[str]) -> list[str]:
    """Puts the adapters that `save_adapters` wrote on a model, in place; returns the names of the adapted layers.

    Args:
        module: the base model as it was before `inject`; or one with the same adapters, which get the saved values.
        path: the folder.

    Raises:
        AdapterError: no such files, or damaged ones; a model without these layers; another base than that of the
            training, whose singular vectors differ. The model may then hold adapters with other values.
    """
    folder = Path(path)
    layers, also = _read_config(folder / CONFIG_FILE)
    tensors = _read_tensors(folder / TENSORS_FILE)
    weights = _weights(module)
    for key in also:
        if key not in tensors or key not in weights or tensors[key].shape != weights[key].shape:
            raise AdapterError(f"{folder}: its '{key}' is not that of this model")
    there = {name: layer.recipe for name, layer in adapted_layers(module)}
    if not there:
        _build(module, layers)
    for name, recipe in there.items():
        if recipe and name in layers and _function(recipe) != _function(layers[name]):
            raise AdapterError(f"{name}: the model's adapter has another method or other options than the saved")
    load_adapter_state_dict(module, {key: tensor for key, tensor in tensors.items() if key not in also})
    with torch.no_grad():
        for key in also:
            weights[key].copy_(tensors[key])
    return list(layers)


def _build(module: nn.Module, layers: dict[str, Any]) -> None:
    found = dict(module.named_modules())
    for name in layers:
        if not isinstance(found.get(name), nn.Linear | nn.Conv2d):
            raise AdapterError(f"{name}: the model has no Linear or Conv2d layer of this name")
    for name, recipe in layers.items():
        adapted = adapt(name, found[name], recipe["method"], Ranks(**recipe["ranks"]), recipe["options"])
        module.set_submodule(name, adapted)


def _function(recipe: dict[str, Any]) -> list[Any]:
    """The method, and the options that say what a layer computes; others say how it starts and trains."""
    defaults = signature(METHODS[recipe["method"]].layer.build).parameters
    options = {key: defaults[key].default for key in _OF_FUNCTION if key in defaults} | recipe["options"]
    return [recipe["method"], *(options.get(key) for key in _OF_FUNCTION)]


def _weights(module: nn.Module) -> dict[str, Tensor]:
    return module.state_dict(keep_vars=True)


def _read_config(file: Path) -> tuple[dict[str, Any], list[str]]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AdapterError(f"{file}: cannot be read ({error})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise AdapterError(f"{file}: is not of the format {FORMAT}, which `save_adapters` writes")
    try:
        for recipe in content["layers"].values():
            if recipe["method"] not in METHODS:
                raise AdapterError(f"{file}: its method '{recipe['method']}' is not known to this version")
            Ranks(**recipe["ranks"]), dict(recipe["options"])
        return content["layers"], list(content["also"])
    except AdapterError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise AdapterError(f"{file}: is damaged ({error!r})") from error


def _read_tensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"{file}: cannot be read ({error})") from error


def _replace(file: Path, write: Callable[[Path], Any]) -> None:
    """Writes a file under another name first, so that an interrupted writing leaves the file before it as it was."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        write(temporary)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
