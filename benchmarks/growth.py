"""How a training step of SALT grows with image size, batch and rank: time, peak memory, and their curves.

    python -m benchmarks.growth [--sizes 256 384 512 768 1024] [--batches 1 2 3 4] [--ranks 4 32 128 256]
                                [--rounds 5] [--output runs/bench]

The points of a curve are timed in turns, each in a process of its own. Beside their times stand the multiplications
they need, counted: those of attention over all tokens grow with the fourth power of the image's side, all others with
its square. Memory, which holds no matrix of all pairs of tokens, grows with its square.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, addmm_flop, sdpa_backward_flop_count, sdpa_flop_count

from benchmarks.step import Job, compare
from benchmarks.timing import MIN_ROUNDS, Comparison, parser, publish
from utils.files import atomic_path

WAY = "ours salt_256 fp32"
LABELS = {"size": "side of the images, pixels", "batch": "batch", "rank": "LoRA rank"}
BATCH = 1  # where it is not what grows
# The kernels of a CPU, which torch's counter leaves out.
ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda *shapes, **_: sdpa_flop_count(*shapes[:3]),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda *shapes, **_: sdpa_backward_flop_count(
        *shapes[:4]
    ),
}
IN_PLACE = {torch.ops.aten.addmm_: lambda *shapes, **_: addmm_flop(*shapes)}  # left out as well


def multiplications(job: Job) -> dict[str, int]:
    """Multiplications in the matrix products, convolutions and attention of one step on a CPU.

    Returns:
        {"all": of everything, "attention": of the fused attention, channels of zeros among them}.
    """
    step = job.step()
    counter = FlopCounterMode(display=False, custom_mapping=ATTENTION | IN_PLACE)
    with counter:
        step()
    by_kernel = counter.get_flop_counts()["Global"]  # additions count there as well
    attention = sum(by_kernel.get(kernel, 0) for kernel in ATTENTION)
    return {"all": sum(by_kernel.values()) // 2, "attention": attention // 2}


def notes(jobs: dict[int, Job]) -> dict[str, Any]:
    """The values of a curve, and for each 1e9 multiplications a step and attention's share of them."""
    counts = [multiplications(job) for job in jobs.values()]
    shares = [count["attention"] / count["all"] for count in counts]
    return {"values": [*jobs], "1e9_multiplications": [count["all"] / 1e9 for count in counts], "attention": shares}


def plot(curves: Sequence[Comparison], path: Path) -> None:
    """Time above, memory below, a column for each curve; dashed, its multiplications at the best speed of the curve."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(4 * len(curves), 5), layout="constrained")
    axes = drawn.subplots(2, len(curves), squeeze=False)
    for column, each in enumerate(curves):
        values, needed = each.notes["values"], each.notes["1e9_multiplications"]
        seconds = [each.median(way) for way in each.seconds]
        pace = min(second / count for second, count in zip(seconds, needed, strict=True))
        axes[0, column].plot(values, seconds, marker="o", label="measured")
        axes[0, column].plot(values, [pace * count for count in needed], "--", color="grey", label="multiplications")
        axes[1, column].plot(values, list(each.peak_mib.values()), marker="o", color="tab:orange")
        axes[1, column].set_xlabel(LABELS[each.case])
        for axis in axes[:, column]:
            axis.set_ylim(0, 1.1 * axis.get_ylim()[1])
            axis.set_xticks(values)
    axes[0, 0].legend()
    axes[0, 0].set_ylabel("seconds a step")
    axes[1, 0].set_ylabel("peak memory, MiB")
    with atomic_path(path) as temporary:
        drawn.savefig(temporary, dpi=120)


def main(argv: Sequence[str] | None = None) -> None:
    """Time all curves, publish the result and draw it."""
    arguments = parser(__doc__)
    arguments.set_defaults(rounds=MIN_ROUNDS)
    arguments.add_argument("--sizes", nargs="+", type=int, default=[256, 384, 512, 768, 1024])
    arguments.add_argument("--size", type=int, default=512, help="side of the images of the other two curves")
    arguments.add_argument("--batches", nargs="+", type=int, default=[1, 2, 3, 4])
    arguments.add_argument("--ranks", nargs="+", type=int, default=[4, 32, 128, 256])
    arguments.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="options of the model's config")
    args = arguments.parse_args(argv)
    options = tuple(args.set)
    jobs = {
        "size": {size: Job(WAY, BATCH, size, options) for size in args.sizes},
        "batch": {batch: Job(WAY, batch, args.size, options) for batch in args.batches},
        "rank": {rank: Job(WAY, BATCH, args.size, (*options, f"ft.r_lora={rank}")) for rank in args.ranks},
    }
    curves = [
        compare(name, {f"{name} {value}": job for value, job in each.items()}, args.rounds, notes(each))
        for name, each in jobs.items()
    ]
    plot(curves, args.output / "growth.png")
    publish("growth", curves, args.output)


if __name__ == "__main__":
    main()
