"""The device that a user names, and what it can do."""

import logging
import os

import torch

from utils.errors import ConfigError

log = logging.getLogger(__name__)


def resolve_device(name: str) -> torch.device:
    """The device for "auto" (CUDA where there is one, else the CPU), "cpu", "cuda", "cuda:N", or "mps" (untested).

    With several processes on a machine (torchrun), "auto" and "cuda" give each process its own GPU, by LOCAL_RANK.

    Raises:
        ConfigError: another name; no CUDA or MPS; an N that does not exist, or that several processes would share.
    """
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    if name == "mps":
        if not torch.backends.mps.is_available():
            raise ConfigError("device: 'mps' asks for Apple's GPU, which torch does not find here; use cpu or auto")
        log.warning("device mps is passed to torch as it is: nothing here was ever run on it")
        return torch.device("mps")
    kind, _, index = name.partition(":")
    if kind != "cuda" or (name != "cuda" and not index.isdecimal()):
        raise ConfigError(f"device: {name!r} is not known, use auto, cpu, cuda:N or mps")
    if not torch.cuda.is_available():
        raise ConfigError(f"device: {name!r} asks for CUDA, which torch does not find here; use cpu or auto")
    if several and index:
        raise ConfigError(f"device: {name!r} is one GPU for several processes; use cuda, which gives each its own")
    index = os.environ.get("LOCAL_RANK", "0") if several else index
    count = torch.cuda.device_count()
    if int(index or 0) >= count:
        raise ConfigError(f"device: 'cuda:{index or 0}' does not exist, this machine has cuda:0 to cuda:{count - 1}")
    return torch.device("cuda", int(index or 0))


def cpu_multiplies_bf16() -> bool:
    """Whether torch has fast bf16 matrix products on this CPU (on x86: with AVX-512 or newer).

    Without them, bf16 takes a hundred times as long as fp32.
    """
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
