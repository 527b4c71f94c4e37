"""The machine and software of a run, and its peak memory."""

import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from utils.files import PROJECT_ROOT
from utils.pools import usable_cores

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
