"""How a training step of SALT grows with image size, batch and rank: time, peak memory, and their curves.

    python -m benchmarks.growth [--sizes 256 384 512 768 1024] [--batches 1 2 3 4] [--ranks 4 32 128 256]
                                [--rounds 5] [--output runs/bench]

The points of a curve are timed in turns, each in a process of its own. Attention over all tokens grows with the fourth
power of the image's side, the rest of the step with its square; memory, which holds no matrix of all pairs of tokens,
with its square too.
"""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.step import Job, compare
from benchmarks.timing import MIN_ROUNDS, Comparison, parser, publish
from utils.files import atomic_path

WAY = "ours salt_256 fp32"
LABELS = {"size": "side of the images, pixels", "batch": "batch", "rank": "LoRA rank"}
BATCH = 1  # where it is not what grows


def plot(curves: Sequence[Comparison], path: Path) -> None:
    """Time above, memory below, a column for each curve; dashed, what grows with the number of tokens alone."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(4 * len(curves), 5), layout="constrained")
    axes = drawn.subplots(2, len(curves), squeeze=False)
    for column, each in enumerate(curves):
        values = each.notes["values"]
        seconds = [each.median(way) for way in each.seconds]
        axes[0, column].plot(values, seconds, marker="o")
        axes[1, column].plot(values, list(each.peak_mib.values()), marker="o", color="tab:orange")
        if each.case == "size":
            axes[0, column].plot(
                values, [seconds[0] * (value / values[0]) ** 2 for value in values], "--", color="grey"
            )
        axes[1, column].set_xlabel(LABELS[each.case])
        for row in (0, 1):
            axes[row, column].set_ylim(bottom=0)
            axes[row, column].set_xticks(values)
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
        compare(name, {f"{name} {value}": job for value, job in each.items()}, args.rounds, {"values": list(each)})
        for name, each in jobs.items()
    ]
    plot(curves, args.output / "growth.png")
    publish("growth", curves, args.output)


if __name__ == "__main__":
    main()
