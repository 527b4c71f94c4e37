"""Reading files of tensors without running anything that is in them."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from checkpointing.published import download_hint
from checkpointing.torchscript import is_torchscript, read_torchscript
from utils.errors import ConfigError, UserError

TORCH_SUFFIXES = (".pth", ".pt")
SUFFIXES = (".safetensors", *TORCH_SUFFIXES)
_WRAPPERS = ("model", "state_dict", "model_state_dict")


def check_writable_name(path: Path, option: str) -> None:
    """Raises ConfigError unless `path` has a suffix that tensors can be written by, and is no folder."""
    if path.suffix not in SUFFIXES or path.is_dir():
        raise ConfigError(f"{option} {path}: must be a file name that ends in {', '.join(SUFFIXES)}")


def read_tensor_file(path: Path) -> tuple[Any, dict[str, str]]:
    """(content, metadata) of a .safetensors file, of one written by torch.save, or of a TorchScript archive.

    The latter two may have any other name and have no metadata.

    Raises:
        UserError: a file that is missing, truncated, of another kind, or that holds pickled code, which is refused.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file of weights; {download_hint(path.name)}")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
        if is_torchscript(path):
            return read_torchscript(path), {}
        return torch.load(path, map_location="cpu", weights_only=True), {}
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: refused, it is no plain file of tensors: it holds pickled code, or is damaged"
        ) from error
    except Exception as error:  # damaged bytes end in whatever the parser trips over: IndexError, struct.error, ...
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(
            f"{path}: cannot be read as weights, it may be truncated or of another kind ({reason})"
        ) from error


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The state dict of a weights file, unwrapped ("model", "state_dict") and without "module." prefixes.

    Raises:
        UserError: as `read_tensor_file`, and for a file that holds no state dict.
    """
    return unwrapped_state_dict(read_tensor_file(path)[0], path)


def unwrapped_state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in what `read_tensor_file` gave. Raises: UserError where there is none."""
    while isinstance(content, Mapping):
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    is_state = isinstance(content, Mapping) and content and all(isinstance(t, Tensor) for t in content.values())
    if not is_state:
        raise UserError(f"{path}: holds no state dict of tensors")
    return {key.removeprefix("module."): value for key, value in content.items()}
