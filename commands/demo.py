"""`main.py demo`: nano SAM before and after SALT."""

import argparse
from pathlib import Path

HELP = "nano SAM before and after SALT on generated vessels, in a few minutes on a CPU"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("--output", type=Path, default=Path("runs/demo"))
    parser.add_argument("--epochs", type=int, help="fewer or more epochs than the demo's own")


def run(args: argparse.Namespace) -> None:
    """Runs the demo and prints its table."""
    from experiments.demo import demo

    print(demo(args.output, args.epochs))
