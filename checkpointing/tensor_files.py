"""Reads files of tensors without running any code in them."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from checkpointing.published import download_hint
from utils.errors import ConfigError, UserError

TORCH_SUFFIXES = (".pth", ".pt")
SUFFIXES = (".safetensors", *TORCH_SUFFIXES)
_WRAPPERS = ("model", "state_dict", "model_state_dict")


def check_writable_name(path: Path, option: str) -> None:
    """Raises ConfigError for a folder, or a suffix that stands for no format of tensors."""
    if path.suffix not in SUFFIXES or path.is_dir():
        raise ConfigError(f"{option} {path}: must be a file name that ends in {', '.join(SUFFIXES)}")


def read_tensor_file(path: Path) -> tuple[Any, dict[str, str]]:
    """(content, metadata) of a .safetensors file, or of one written by torch.save, which has no metadata.

    Raises:
        UserError: a file that is missing, truncated or of another kind, or that holds pickled or TorchScript code.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file of weights; {download_hint(path.name)}")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
        if _is_torchscript(path):
            raise UserError(
                f"{path}: refused, it is a TorchScript archive, which holds code; give a file of its state dict, or "
                "for CLIP OpenAI's own ViT-B-32.pt (python main.py download clip_vit_b32)"
            )
        return torch.load(path, map_location="cpu", weights_only=True), {}
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: refused, it is no plain file of tensors: it holds pickled code, or is damaged"
        ) from error
    except Exception as error:  # damaged bytes end in whatever the parser trips over: IndexError, struct.error, ...
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(
            f"{path}: cannot be read as weights, it may be truncated or of another kind ({reason})"
        ) from error


def _is_torchscript(path: Path) -> bool:
    """Whether `torch.load` would take the file for a TorchScript archive."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The state dict in a weights file, without wrappers ("model", "state_dict") and "module." prefixes.

    Raises:
        UserError: as `read_tensor_file`, and for a file that holds no state dict.
    """
    return unwrapped_state_dict(read_tensor_file(path)[0], path)


def unwrapped_state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in the content that `read_tensor_file` returned. Raises: UserError if there is none."""
    while isinstance(content, Mapping):
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    is_state = isinstance(content, Mapping) and content and all(isinstance(t, Tensor) for t in content.values())
    if not is_state:
        raise UserError(f"{path}: holds no state dict of tensors")
    return {key.removeprefix("module."): value for key, value in content.items()}
