"""Singular value decompositions kept on disk: a second run of a large model starts in seconds."""

import hashlib
import logging
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from adapters import Decomposition, decompose, is_decomposition
from utils.files import atomic_path, cache_folder

log = logging.getLogger(__name__)

# Part of every key: another number where `decompose` gives other factors than before.
_VERSION = 1
# Numbers of a weight below which decomposing it is as fast as reading its factors.
_SMALLEST = 2**17


def cached_decompose(weight: Tensor) -> Decomposition:
    """`adapters.decompose`, with results kept in the cache folder, a file for each weight, named by its hash.

    A file is used only if it holds a decomposition of this very weight. A folder that can't be written to costs a
    warning and nothing else. Files are about 4/3 of the size of the weights and may be deleted at any time.
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
    """Where the decompositions are. May not exist."""
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
        log.warning("%s: is no decomposition and is made anew (%s)", file, error)
        return None
    if not is_decomposition(factors, weight):
        log.warning("%s: is not the decomposition of its weight and is made anew", file)
        return None
    return factors


def _write(file: Path, factors: Decomposition) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(file, durable=False) as temporary:  # what a crash leaves is checked when it is read
            save_file({"U": factors.U, "s": factors.s, "Vh": factors.Vh}, temporary)
    except (SafetensorError, OSError) as error:
        log.warning("%s: the decomposition can't be kept (%s); set SALT_CACHE to a folder with room", file, error)
