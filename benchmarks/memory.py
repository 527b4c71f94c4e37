"""Peak memory of a training step, estimated without a GPU and without weights.

    python benchmarks/memory.py --output runs/memory              the whole table: memory.md and memory.json
    python benchmarks/memory.py --types base --sizes 512 --strategies salt lora
    python benchmarks/memory.py --check                           one estimate against a real step on this CPU

Forward and backward pass run on fake tensors, which have shapes but no values. Every storage that they allocate is
counted until it is freed, beside the weights and AdamW's two states. The count leaves out the CUDA context (0.3 to 0.5
GiB), the libraries' workspaces and the allocator's fragmentation: leave 10 to 15% free. Attention is counted as a
fused kernel, as it runs on a GPU.
"""

import argparse
import json
import logging
import sys
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.peak_memory import MEGABYTE, LiveBytes, in_new_process, peak_rise  # noqa: E402
from model import build_model  # noqa: E402
from networks.base import SegmentationModel  # noqa: E402
from networks.encoder_options import checkpoint_blocks  # noqa: E402
from training.optimizer import build_optimizer  # noqa: E402
from training.run import Objective  # noqa: E402
from utils.config import Config, load_config  # noqa: E402
from utils.config.options import SAM2_ARCH, SAM_ARCH, Precision  # noqa: E402
from utils.files import write_json, write_text  # noqa: E402
from utils.losses import SegmentationLoss  # noqa: E402

MODEL_CONFIG = ROOT / "configs" / "SALT_config.yaml"
# (arch, sam_type): a row of the table each, for every size, strategy and option.
MODELS = [
    *((SAM_ARCH, sam_type) for sam_type in ("base", "large", "huge")),
    *((SAM2_ARCH, sam_type) for sam_type in ("tiny", "small", "base_plus", "large")),
]
SIZES = (512, 1024)
STRATEGIES = ("salt", "svd", "lora", "decoder", "full")
# (precision, gradient checkpointing): a column each.
OPTIONS: tuple[tuple[Precision, bool], ...] = (("fp32", False), ("bf16", False), ("fp32", True), ("bf16", True))
CHECK = (SAM_ARCH, "base", 512, "salt")
ADAM_STATES = 2
AUTOCAST: dict[Precision, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Step:
    """The training step whose memory is estimated; `overrides` are options of the config."""

    arch: str
    sam_type: str
    img_size: int
    strategy: str
    precision: Precision = "fp32"
    gradient_checkpointing: bool = False
    batch_size: int = 1
    overrides: tuple[str, ...] = ()

    def config(self) -> Config:
        """The config of a run with such steps."""
        overrides = [f"arch={self.arch}", f"sam.sam_type={self.sam_type}", f"sam.img_size={self.img_size}"]
        if self.arch == SAM2_ARCH:
            overrides += ["ft.svd_ratio=0.1"]
        elif self.sam_type == "nano":
            overrides += ["ft.svd_rank_linear=8", "ft.svd_rank_conv2d=8"]
        return load_config(MODEL_CONFIG, None, [*overrides, *self.overrides], self.strategy)


def estimate(step: Step) -> dict[str, Any]:
    """{"parameters", "peak"} in bytes: the weights alone, frozen ones included, and the peak of a step."""
    model = _meta_model(step)
    with FakeTensorMode():
        _make_fake(model)
        live = LiveBytes()
        for tensor in (*model.parameters(), *model.buffers()):
            live.add(tensor)
        parameters = live.now
        with live:
            # AdamW's states exist in every step but a run's first. AdamW itself does not run on fake tensors.
            states = [torch.empty(p.shape) for p in model.parameters() if p.requires_grad for _ in range(ADAM_STATES)]
            forward_and_backward(model, step)
            del states
    return {"parameters": parameters, "peak": live.peak}


def _meta_model(step: Step) -> SegmentationModel:
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


def forward_and_backward(model: SegmentationModel, step: Step) -> None:
    """Those of one step of training, on random images, on the CPU."""
    dtype = AUTOCAST[step.precision]
    with torch.autocast("cpu", dtype) if dtype else nullcontext():
        _, losses = objective(model, step)(*random_batch(step, torch.device("cpu")))
    losses["total"].backward()


def objective(model: SegmentationModel, step: Step) -> Objective:
    """The model in training mode with the loss of the step's config."""
    training = step.config().training
    return Objective(model.train(), SegmentationLoss(training.loss), training.reg_multiplier)


def random_batch(step: Step, device: torch.device) -> tuple[torch.Tensor, list[str], torch.Tensor]:
    """Images (B, 3, S, S), labels and masks (B, S, S)."""
    size = (step.img_size, step.img_size)
    images = torch.randn(step.batch_size, 3, *size, device=device)
    return images, ["Foreground"] * step.batch_size, torch.zeros(step.batch_size, *size, device=device)


def random_model(step: Step, device: torch.device) -> SegmentationModel:
    """The model with small random weights, which cost what real ones do."""
    model = _meta_model(step).to_empty(device=device)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            _ = tensor.normal_(0, 0.02) if tensor.is_floating_point() else tensor.zero_()
    return model


def measure(step: Step) -> int:
    """The bytes by which a real step on the CPU raises this process' peak, the model included."""
    _real_steps(replace(step, sam_type="nano", img_size=64))  # loads libraries, starts threads
    return peak_rise(lambda: _real_steps(step))


def _real_steps(step: Step) -> None:
    model = random_model(step, torch.device("cpu"))
    optimizer = build_optimizer(model, step.config().training)
    for _ in range(2):  # from the second on, AdamW's states exist
        optimizer.zero_grad()
        forward_and_backward(model, step)
        optimizer.step()


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table in GiB, with a column for each precision, with and without checkpointing."""
    titles = [f"{precision}{', checkpointing' if checkpointed else ''}" for precision, checkpointed in OPTIONS]
    lines = [f"| model | size | strategy | weights | {' | '.join(titles)} |", "|---|---|---|" + "---|" * 5]
    found: dict[tuple[str, int, str], dict[tuple[str, bool], dict[str, Any]]] = {}
    for row in rows:
        key = (f"{row['arch']} {row['sam_type']}", row["img_size"], row["strategy"])
        found.setdefault(key, {})[row["precision"], row["gradient_checkpointing"]] = row
    for (model, size, strategy), cells in found.items():
        weights = next(iter(cells.values()))["parameters"]
        peaks = [_gib(cells[option]["peak"]) if option in cells else "-" for option in OPTIONS]
        lines.append(f"| {model} | {size} | {strategy} | {_gib(weights)} | {' | '.join(peaks)} |")
    return "\n".join(lines)


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f}"


def check() -> str:
    """Compares the estimate of a step with a measurement in a new process."""
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
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", nargs="+", help="sam_type names; all by default")
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--strategies", nargs="+", default=STRATEGIES)
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--output", type=Path, help="folder for memory.md and memory.json")
    parser.add_argument("--check", action="store_true", help="compare one estimate with a real step on this CPU")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)  # not the warnings of hundreds of configs
    if options.measure:
        print(measure(Step(**json.loads(options.measure))))
        return
    if options.check:
        print(check())
        return
    rows = []
    models = [model for model in MODELS if not options.types or model[1] in options.types]
    for (arch, sam_type), size, strategy in product(models, options.sizes, options.strategies):
        for precision, checkpointed in OPTIONS:
            step = Step(arch, sam_type, size, strategy, precision, checkpointed, options.batch_size)
            rows.append({**asdict(step), **estimate(step)})
        print(table(rows[-len(OPTIONS) :]).splitlines()[-1], flush=True)
    title = f"Peak memory of a training step in GiB, batch {options.batch_size} (benchmarks/memory.py)"
    text = f"{title}\n\n{table(rows)}\n"
    print(f"\n{text}")
    if options.output:
        write_text(options.output / "memory.md", text)
        write_json(options.output / "memory.json", rows)


if __name__ == "__main__":
    main()
