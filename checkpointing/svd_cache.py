"""A cache of singular value decompositions on disk, so that a second run of a large model starts in seconds."""

import hashlib
import logging
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from adapters import Decomposition, decompose, is_decomposition
from checkpointing.tensor_files import write_safetensors
from utils.files import cache_folder

log = logging.getLogger(__name__)

# Part of every key; to be raised when `decompose` changes its factors.
_VERSION = 1
# Decomposing a weight of fewer elements is as fast as reading its factors.
_SMALLEST = 2**17


def cached_decompose(weight: Tensor) -> Decomposition:
    """`adapters.decompose` with a cache on disk: one file per weight, named by its hash.

    A file is used only if it holds a decomposition of this very weight. If the folder cannot be written, it logs a
    warning. Files are about 4/3 of the size of the weights and may be deleted at any time.
    """
    if weight.numel() < _SMALLEST:
        return decompose(weight)
    file = svd_folder() / f"{_key(weight)}.safetensors"
    factors = _read(file, weight)
    if factors is None:
        factors = decompose(weight)
        _write(file, factors)
    return factors


def svd_folder() -> Path:
    """The folder of the decompositions. May not exist."""
    return cache_folder() / "svd"


def _key(weight: Tensor) -> str:
    content = weight.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{_VERSION} {content.dtype} {tuple(content.shape)}".encode(), usedforsecurity=False)
    digest.update(content.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read(file: Path, weight: Tensor) -> Decomposition | None:
    try:
        factors = Decomposition(**load_file(file, device=str(weight.device)))
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError, TypeError) as error:
        log.warning("%s: cannot be read as a decomposition and is recomputed (%s)", file, error)
        return None
    if not is_decomposition(factors, weight):
        log.warning("%s: is not the decomposition of its weight and is recomputed", file)
        return None
    return factors


def _write(file: Path, factors: Decomposition) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        tensors = {"U": factors.U, "s": factors.s, "Vh": factors.Vh}
        write_safetensors(file, tensors, durable=False)  # `_read` checks every file
    except OSError as error:
        log.warning(
            "%s: the decomposition cannot be saved (%s); set SALT_CACHE to another folder",
            file,
            error,
        )
