"""Reads files of tensors without running any code in them."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from checkpointing.published import download_hint
from checkpointing.shards import INDEX_SUFFIX, shard_keys
from utils.errors import ConfigError, UserError, first_line
from utils.files import atomic_path

TORCH_SUFFIXES = (".pth", ".pt")
SUFFIXES = (".safetensors", *TORCH_SUFFIXES)
_WRAPPERS = ("model", "state_dict", "model_state_dict")


def check_writable_name(path: Path, option: str) -> None:
    """Raises ConfigError for a folder, or a suffix that stands for no format of tensors."""
    if path.suffix not in SUFFIXES or path.is_dir():
        raise ConfigError(f"{option} {path}: must be a file name that ends in {', '.join(SUFFIXES)}")


def read_tensor_file(path: Path) -> tuple[Any, dict[str, str]]:
    """(content, metadata) of a .safetensors file, or of one written by torch.save, which has no metadata.

    Of an index (`checkpointing.shards`), the tensors of all its files.

    Raises:
        UserError: a file that is missing, truncated or of another kind, or that holds pickled or TorchScript code.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file of weights; {download_hint(path.name)}")
    if path.name.endswith(INDEX_SUFFIX):
        return _read_shards(path), {}
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
        raise UserError(
            f"{path}: cannot be read as weights, it may be truncated or of another kind ({first_line(error)})"
        ) from error


def _read_shards(index: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for shard, keys in shard_keys(index).items():
        content = read_tensor_file(shard)[0]
        if not isinstance(content, dict) or set(content) != set(keys):
            raise UserError(f"{shard}: does not hold the keys that {index.name} promises; fetch the folder again")
        tensors.update(content)
    return tensors


def check_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raises UserError, which names the tensor, unless all are plain arrays of finite numbers."""
    for key, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.is_meta:
            raise UserError(f"{path}: '{key}' is no plain array of real numbers ({tensor.layout}, {tensor.dtype})")
        if tensor.is_floating_point() and not torch.isfinite(tensor.float()).all():
            raise UserError(
                f"{path}: '{key}' holds values that are not finite (NaN or infinite): the training of these weights "
                "failed, or the file is damaged; give another"
            )


def same_tensors(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Whether both have the same keys and values, to the bit."""
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None, content: Any) -> None:
    """Writes `tensors` with `metadata` as safetensors, or `content` by torch.save if the name ends in .pth or .pt.

    Raises: DiskError; the file before it is then undamaged.
    """
    if path.suffix not in TORCH_SUFFIXES:
        write_safetensors(path, tensors, metadata)
        return
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        torch.save(content, file)  # by itself it would hide the reason of an error


def write_safetensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None, durable: bool = True
) -> None:
    """Writes a safetensors file as `atomic_path` does.

    `safetensors.torch.save_file` writes a hidden file of a random name first, which a killed process leaves behind.

    Raises: DiskError; the file before it is then undamaged.
    """
    content = save({key: tensor.contiguous() for key, tensor in tensors.items()}, metadata)
    with atomic_path(path, durable) as temporary:
        temporary.write_bytes(content)


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
    """The state dict in the content that `read_tensor_file` returned.

    Raises: UserError if there is none, or as `check_tensors`.
    """
    for _ in _WRAPPERS:  # no more levels than that: a dictionary may hold itself
        if isinstance(content, Mapping):
            content = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), content)
    is_state = isinstance(content, Mapping) and content and all(isinstance(t, Tensor) for t in content.values())
    if not is_state:
        raise UserError(f"{path}: holds no state dict of tensors")
    check_tensors(content, path)
    return {key.removeprefix("module."): value for key, value in content.items()}
