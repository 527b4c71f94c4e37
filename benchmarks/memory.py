"""Peak memory of a training step, estimated without a GPU and without weights.

    python benchmarks/memory.py --output runs/memory              the whole table: memory.md and memory.json
    python benchmarks/memory.py --types base --sizes 512 --strategies salt lora
    python benchmarks/memory.py --check                           one estimate against a real step on this CPU

Forward and backward run on fake tensors, which have shapes and no values, and every storage that they make is counted
from its creation to its end, beside the weights and AdamW's two states. What the count leaves out: the CUDA context
(0.3 to 0.5 GiB), libraries' workspaces and the allocator's gaps; leave 10 to 15% free. Attention is counted as a fused
kernel, as it runs on a GPU.
"""

import argparse
import json
import logging
import sys
import weakref
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.peak_memory import MEGABYTE, in_new_process, peak_rise  # noqa: E402
from model import build_model  # noqa: E402
from networks.encoder_options import checkpoint_blocks  # noqa: E402
from training.optimizer import build_optimizer  # noqa: E402
from training.run import Objective  # noqa: E402
from utils.config import Config, load_config  # noqa: E402
from utils.files import write_json, write_text  # noqa: E402
from utils.losses import SegmentationLoss  # noqa: E402

MODEL_CONFIG = ROOT / "configs" / "SALT_config.yaml"
# (arch, sam_type): a row of the table each, for every size, strategy and option.
MODELS = [
    *(("Prompt Adapted SAM", sam_type) for sam_type in ("base", "large", "huge")),
    *(("Prompt Adapted SAM 2", sam_type) for sam_type in ("tiny", "small", "base_plus", "large")),
]
SIZES = (512, 1024)
STRATEGIES = ("salt", "svd", "lora", "decoder", "full")
CHECK = ("Prompt Adapted SAM", "base", 512, "salt")
ADAM_STATES = 2


@dataclass(frozen=True)
class Step:
    """What is estimated: a training step of a model."""

    arch: str
    sam_type: str
    img_size: int
    strategy: str
    precision: str = "fp32"
    gradient_checkpointing: bool = False
    batch_size: int = 1

    def config(self) -> Config:
        """The config of such a run."""
        overrides = [f"arch={self.arch}", f"sam.sam_type={self.sam_type}", f"sam.img_size={self.img_size}"]
        if self.arch == "Prompt Adapted SAM 2":
            overrides += ["ft.svd_ratio=0.1"]
        elif self.sam_type == "nano":
            overrides += ["ft.svd_rank_linear=8", "ft.svd_rank_conv2d=8"]
        return load_config(MODEL_CONFIG, None, overrides, self.strategy)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages that operations inside it make, while they live: `now` and `peak`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, weakref.ref] = {}

    def add(self, tensor: torch.Tensor) -> None:
        """Counts the storage of a tensor, once, until it is freed."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()
        self._known[key] = weakref.ref(storage, lambda _: self._freed(key, size))
        self.now += size
        self.peak = max(self.peak, self.now)

    def _freed(self, key: int, size: int) -> None:
        self._known.pop(key, None)
        self.now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.add(leaf)
        return result


def estimate(step: Step) -> dict[str, Any]:
    """{"parameters", "peak"} in bytes: the weights alone, frozen ones included, and the most at any time in a step."""
    model = _model(step)
    with FakeTensorMode():
        _make_fake(model)
        live = LiveBytes()
        for tensor in (*model.parameters(), *model.buffers()):
            live.add(tensor)
        parameters = live.now
        with live:
            # As in every step but a run's first. AdamW itself reads values, which fakes have not.
            states = [torch.empty(p.shape) for p in model.parameters() if p.requires_grad for _ in range(ADAM_STATES)]
            forward_and_backward(model, step)
            del states
    return {"parameters": parameters, "peak": live.peak}


def _model(step: Step) -> nn.Module:
    """The model on the meta device."""
    model = build_model(step.config(), counted_only=True)
    if step.gradient_checkpointing:
        checkpoint_blocks(model)
    return model


def _make_fake(model: nn.Module) -> None:
    """Gives a model on the meta device fake parameters and buffers on the CPU."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(torch.empty(parameter.shape), parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def forward_and_backward(model: nn.Module, step: Step) -> None:
    """Those of one step of training, on random images, on the CPU."""
    training = step.config().training
    objective = Objective(model.train(), SegmentationLoss(training.loss), training.reg_multiplier)
    images = torch.randn(step.batch_size, 3, step.img_size, step.img_size)
    masks = torch.zeros(step.batch_size, step.img_size, step.img_size)
    autocast = torch.autocast("cpu", torch.bfloat16) if step.precision == "bf16" else nullcontext()
    with autocast:
        _, parts = objective(images, ["Foreground"] * step.batch_size, masks)
    parts["total"].backward()


def measure(step: Step) -> int:
    """The bytes by which a real step on the CPU raises this process' peak, the model included."""
    _real_steps(replace(step, sam_type="nano", img_size=64))  # loads libraries, starts threads
    return peak_rise(lambda: _real_steps(step))


def _real_steps(step: Step) -> None:
    model = _model(step).to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.normal_(0, 0.02) if tensor.is_floating_point() else tensor.zero_()
    optimizer = build_optimizer(model, step.config().training)
    for _ in range(2):  # from the second on, AdamW's states are there
        optimizer.zero_grad()
        forward_and_backward(model, step)
        optimizer.step()


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown, in GiB: precision and checkpointing side by side."""
    options = [("fp32", False), ("bf16", False), ("fp32", True), ("bf16", True)]
    titles = [f"{precision}{', checkpointing' if checkpointed else ''}" for precision, checkpointed in options]
    lines = [f"| model | size | strategy | weights | {' | '.join(titles)} |", "|---|---|---|" + "---|" * 5]
    found: dict[tuple[str, int, str], dict[tuple[str, bool], dict[str, Any]]] = {}
    for row in rows:
        key = (f"{row['arch']} {row['sam_type']}", row["img_size"], row["strategy"])
        found.setdefault(key, {})[row["precision"], row["gradient_checkpointing"]] = row
    for (model, size, strategy), cells in found.items():
        weights = next(iter(cells.values()))["parameters"]
        peaks = [_gib(cells[option]["peak"]) if option in cells else "-" for option in options]
        lines.append(f"| {model} | {size} | {strategy} | {_gib(weights)} | {' | '.join(peaks)} |")
    return "\n".join(lines)


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f}"


def check() -> str:
    """Estimate and measurement of one step, the latter in a process of its own."""
    step = Step(*CHECK)
    lines = []
    for checkpointed in (False, True):
        step = replace(step, gradient_checkpointing=checkpointed)
        measured = in_new_process([__file__, "--measure", json.dumps(asdict(step))])
        estimated = estimate(step)["peak"]
        name = f"{step.sam_type} {step.img_size} {step.strategy}{', checkpointing' if checkpointed else ''}"
        lines.append(
            f"{name}: estimated {estimated / MEGABYTE:.0f} MiB, measured {measured / MEGABYTE:.0f} MiB, "
            f"ratio {estimated / measured:.3f}"
        )
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", nargs="+", help="sam_type names; all by default")
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--strategies", nargs="+", default=STRATEGIES)
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--output", type=Path, help="folder for memory.md and memory.json")
    parser.add_argument("--check", action="store_true", help="compare one estimate with a real step on this CPU")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)  # not what each of hundreds of configs leaves unused
    if options.measure:
        print(measure(Step(**json.loads(options.measure))))
        return
    if options.check:
        print(check())
        return
    rows = []
    for arch, sam_type in MODELS:
        if options.types and sam_type not in options.types:
            continue
        for size in options.sizes:
            for strategy in options.strategies:
                for precision in ("fp32", "bf16"):
                    for checkpointed in (False, True):
                        step = Step(arch, sam_type, size, strategy, precision, checkpointed, options.batch_size)
                        rows.append({**asdict(step), **estimate(step)})
                print(table(rows[-4:]).splitlines()[-1], flush=True)
    text = (
        f"Peak memory of a training step in GiB, batch {options.batch_size} (benchmarks/memory.py)\n\n{table(rows)}\n"
    )
    print(f"\n{text}")
    if options.output:
        write_text(options.output / "memory.md", text)
        write_json(options.output / "memory.json", rows)


if __name__ == "__main__":
    main()
