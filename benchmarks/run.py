"""Runs the CPU benchmarks, or those named, one after the other, each in a process of its own.

python -m benchmarks.run [startup inference step metrics] [--output runs/bench]
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence

from benchmarks.timing import OUTPUT

BENCHMARKS = ("startup", "inference", "step", "metrics")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmarks with the given options and returns how many failed."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; all by default")
    arguments.add_argument("--rounds", help="how many times each way is timed")
    arguments.add_argument("--output", default=str(OUTPUT), help="folder of the tables and the JSON")
    args = arguments.parse_args(argv)
    if unknown := set(args.names) - set(BENCHMARKS):
        arguments.error(f"unknown: {', '.join(sorted(unknown))}; known are {', '.join(BENCHMARKS)}")
    options = ["--output", args.output] + (["--rounds", args.rounds] if args.rounds else [])
    failed = 0
    for name in args.names or BENCHMARKS:
        print(f"== {name}", flush=True)
        failed += subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *options]).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
