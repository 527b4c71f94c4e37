"""The machine and software of a run, its device, its peak memory and its seeds."""

import logging
import os
import platform
import random
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

from utils.cores import usable_cores
from utils.errors import ConfigError
from utils.files import PROJECT_ROOT

logger = logging.getLogger(__name__)

# The packages that results depend on; the last three build the traditional networks.
PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "accelerate",
    "segment_anything",
    "sam2",
    "open_clip_torch",
    "monai",
    "segmentation_models_pytorch",
    "timm",
)


def environment_info(device: torch.device) -> dict:
    """The content of a run's environment.json. Without environment variables, since they may hold secrets.

    Returns:
        {"python", "packages": {name: version or None where not installed}, "platform", "cpu_count" (the cores that
        this process may use), "device", "device_name", "cuda" (None on the CPU), "git": {"commit", "dirty"} or None
        outside a git checkout, "command" (the command line)}.
    """
    on_cuda = device.type == "cuda"
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "cpu_count": usable_cores(),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if on_cuda else _cpu_name(),
        "cuda": torch.version.cuda if on_cuda else None,
        "git": _git_state(PROJECT_ROOT),
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
    }


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory so far, in bytes.

    On CUDA: of tensors on `device` (`torch.cuda.max_memory_allocated`). On the CPU: the largest resident size of this
    process since it started, with interpreter and libraries (Linux: VmHWM; elsewhere: ru_maxrss).
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Not ru_maxrss on Linux: it begins with what the parent held when it started this process.
    if high_water_mark := _first_value("/proc/self/status", "VmHWM"):
        return int(high_water_mark.removesuffix(" kB")) * 1024
    import resource  # Unix only

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, others KiB


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
        logger.warning("device mps is passed to torch as it is: nothing here was ever run on it")
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


def seed_everything(seed: int) -> None:
    """Seeds the global generators of python, numpy and torch (all devices).

    Raises:
        ConfigError: a seed outside 0 to 2^32 - 1, numpy's range.
    """
    if not 0 <= seed < 2**32:
        raise ConfigError(f"seed: {seed} is outside 0 to 2^32 - 1")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def deterministic(on: bool) -> Iterator[None]:
    """A block in which torch uses deterministic kernels, if `on`.

    Warns of each GPU operation that has no such kernel.
    """
    if not on:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = benchmark


def _version(package: str) -> str | None:
    if package == "torch":
        return str(torch.__version__)  # with the build (+cu130), which the package's metadata may lack
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    return _first_value("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()


def _first_value(path: str, key: str) -> str | None:
    """The value of the first "key: value" line of a /proc file; None without such a file or key."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in pairs if name.strip() == key), None)


def _git_state(root: Path) -> dict | None:
    commit = _git(root, "rev-parse", "HEAD")
    top = _git(root, "rev-parse", "--show-toplevel")
    # A copy inside another project's checkout must not report that project's commit.
    if not commit or top is None or Path(top).resolve() != root:
        return None
    return {"commit": commit, "dirty": _git(root, "status", "--porcelain") != ""}


def _git(root: Path, *arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
