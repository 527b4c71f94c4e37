"""Times a training step of Table 1's models beside the plain equations and Hugging Face peft, and measures its peak.

    python -m benchmarks.step [--groups rank_256 ... | --ways "naive salt_256 fp32" "ours salt_256 fp32" ...]
                              [--batch 2 5] [--size 512] [--keep-freed] [--rounds 11] [--output runs/bench]

A step is forward pass, loss, backward pass and AdamW on random weights and images. The ways of a group are timed in
turns, each in a process of its own; further processes measure the peaks. All processes of a group exist at the same
time: 13 GB for rank_256 at batch 2, twice that at batch 5, where `--ways` selects fewer. bf16 is timed only on CPUs
with instructions for it. The price of a page fault differs between machines; `--keep-freed` avoids nearly all of them.
"""

import gc
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from benchmarks.naive import naive, peft
from benchmarks.peak_memory import KEEP_FREED, MEGABYTE, in_new_process, peak_rise
from benchmarks.timing import Comparison, in_own_process, interleaved, parser, precisions, publish
from model import build_model
from networks.base import SegmentationModel
from training.optimizer import build_optimizer
from training.run import Objective
from utils.config import Config, load_config
from utils.losses import SegmentationLoss

TABLE1 = Path(__file__).resolve().parents[1] / "configs" / "table1"
COMMAND = ("-m", "benchmarks.step")
LABEL = "Foreground"
WARMUP = 3  # the first steps have ten times the page faults of later ones
# Each way is "how row precision"; the others of a group are compared with the first.
GROUPS = {
    "rank_256": (
        "naive salt_256 fp32",
        "ours salt_256 fp32",
        "ours lora_256 fp32",
        "peft lora_256 fp32",
    ),
    "rank_256_bf16": (
        "naive salt_256 fp32",
        "ours salt_256 bf16",
        "ours lora_256 bf16",
        "peft lora_256 bf16",
    ),
    "salt_4": ("naive salt_4 fp32", "ours salt_4 fp32", "ours salt_4 bf16"),
    "lora_4": ("naive lora_4 fp32", "ours lora_4 fp32", "ours lora_4 bf16"),
    "detail": ("ours salt_256 fp32", "ours salt_256_detail fp32"),
    "svd": ("naive ssam fp32", "ours ssam fp32", "ours ssam bf16"),
    "sam2": (
        "naive sam2_salt_256 fp32",
        "ours sam2_salt_256 fp32",
        "ours sam2_lora_256 fp32",
        "peft sam2_lora_256 fp32",
        "ours sam2_salt_256 bf16",
    ),
}


@dataclass(frozen=True)
class Job:
    """One way: `way` as in GROUPS, the batch size, the side of the images in pixels, options of the config."""

    way: str
    batch: int
    size: int
    overrides: tuple[str, ...] = ()

    def step(self) -> Callable[[], None]:
        """A function that performs one training step."""
        how, row, precision = self.way.split()
        model, config = _model(how, row, (f"sam.img_size={self.size}", *self.overrides))
        training = config.training
        objective = Objective(model.train(), SegmentationLoss(training.loss), training.reg_multiplier)
        optimizer = build_optimizer(model, training)
        images = torch.randn(self.batch, 3, self.size, self.size)
        masks = (torch.rand(self.batch, self.size, self.size) < 0.1).float()
        autocast = partial(torch.autocast, "cpu", torch.bfloat16) if precision == "bf16" else nullcontext

        def step() -> None:
            optimizer.zero_grad()
            with autocast():
                _, losses = objective(images, [LABEL] * self.batch, masks)
            losses["total"].backward()
            optimizer.step()

        return step


def _model(how: str, row: str, overrides: Sequence[str]) -> tuple[SegmentationModel, Config]:
    path, overrides = TABLE1 / f"{row}.yaml", ["sam.weights=random", *overrides]
    config = load_config(path, None, overrides)
    torch.manual_seed(0)
    if how == "peft":
        bare = build_model(load_config(path, None, ["ft.type=null", *overrides], "none"), encode_text=False)
        return peft(bare, bare.default_targets("lora"), config.ft.r_lora, config.ft.lora_dropout), config
    model = build_model(config, encode_text=False)
    return (naive(model) if how == "naive" else model), config


def _groups(names: Sequence[str]) -> dict[str, list[str]]:
    """The ways of each group in the precisions of this CPU, without groups of a single way."""
    timed = precisions()
    groups = {name: [way for way in GROUPS[name] if way.split()[2] in timed] for name in names}
    return {name: ways for name, ways in groups.items() if len(ways) > 1}


def peak(job: Job) -> int:
    """Bytes by which the model and two steps raise this process' peak; AdamW's states exist in the second."""
    Job(job.way, 1, 64, job.overrides).step()()  # loads libraries, starts threads
    gc.collect()

    def work() -> None:
        step = job.step()
        step()
        step()

    return peak_rise(work)


def compare(
    case: str, jobs: Mapping[str, Job], rounds: int, notes: dict[str, Any], keep_freed: bool = False
) -> Comparison:
    """Time and peak memory of each job, by name. The others are compared with the first.

    `keep_freed`: the timed processes keep freed memory instead of returning it to the kernel (glibc).
    """
    commands = {name: [*COMMAND, "--peak", json.dumps(asdict(job))] for name, job in jobs.items()}
    peaks = {name: in_new_process(command) / MEGABYTE for name, command in commands.items()}
    environment = KEEP_FREED if keep_freed else None
    with ExitStack() as processes:
        steps = {name: processes.enter_context(in_own_process(job.step, environment)) for name, job in jobs.items()}
        seconds = interleaved(steps, rounds, WARMUP)
    return Comparison(case, seconds, next(iter(jobs)), notes=notes, peak_mib=peaks)


def main(argv: Sequence[str] | None = None) -> None:
    """Times the selected groups and publishes the result."""
    arguments = parser(__doc__)
    arguments.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS))
    arguments.add_argument("--batch", nargs="+", type=int, default=[2])
    ways = sorted({way for group in GROUPS.values() for way in group})
    arguments.add_argument("--ways", nargs="+", choices=ways, help="only these; the first is the baseline")
    arguments.add_argument("--size", type=int, default=512, help="side of the images in pixels")
    arguments.add_argument("--keep-freed", action="store_true", help="the timed processes keep freed memory")
    arguments.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="options of the models' configs")
    arguments.add_argument("--peak", help="(internal) measure one way")
    args = arguments.parse_args(argv)
    if args.peak:
        print(peak(Job(**json.loads(args.peak))))
        return
    comparisons = []
    groups = {"chosen": args.ways} if args.ways else _groups(args.groups)
    for (group, ways), batch in product(groups.items(), args.batch):
        jobs = {way: Job(way, batch, args.size, tuple(args.set)) for way in ways}
        notes = {"size": args.size, "keep_freed": args.keep_freed}
        comparisons.append(compare(f"{group}, batch {batch}", jobs, args.rounds, notes, args.keep_freed))
    publish("step", comparisons, args.output)


if __name__ == "__main__":
    main()
