"""Reading files of tensors without running anything that is in them."""

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from utils.errors import ConfigError, UserError

TORCH_SUFFIXES = (".pth", ".pt")
SUFFIXES = (".safetensors", *TORCH_SUFFIXES)


def check_writable_name(path: Path, option: str) -> None:
    """Raises ConfigError unless `path` has a suffix that tensors can be written by, and is no folder."""
    if path.suffix not in SUFFIXES or path.is_dir():
        raise ConfigError(f"{option} {path}: must be a file name that ends in {', '.join(SUFFIXES)}")


def read_tensor_file(path: Path) -> tuple[Any, dict[str, str]]:
    """(content, metadata) of a .safetensors file or of one written by torch.save (any other name; no metadata).

    Raises:
        UserError: a file that is missing, truncated, of another kind, or that holds pickled code, which is refused.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file of weights")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
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
