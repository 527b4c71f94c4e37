"""`main.py sweep`: runs a plan."""

import argparse
from pathlib import Path

from commands.arguments import add_device_option
from utils.errors import UserError

HELP = "run every row of a plan on every dataset with every seed, except what is finished"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("--plan", type=Path, required=True, help="YAML: output, seeds, datasets, rows, overrides")
    parser.add_argument("--only", nargs="+", default=[], metavar="RUN", help="names row/dataset/seed, * allowed")
    add_device_option(parser)
    parser.add_argument("--force", action="store_true", help="replace runs whose config the plan has changed since")
    parser.add_argument("--dry_run", action="store_true", help="show what is finished and what would run")
    parser.add_argument("--list", action="store_true", help="print the runs' names alone, one per line")


def run(args: argparse.Namespace) -> None:
    """Runs the plan, or lists its runs. Raises: UserError if some failed."""
    from experiments.sweep import sweep
    from experiments.sweep_plan import read_plan, sweep_runs

    chosen = sweep_runs(read_plan(args.plan), args.only)
    if args.list or args.dry_run:
        for planned in chosen:
            print(planned.name if args.list else f"{planned.name}: {planned.state}")
        return
    failures = sweep(chosen, args.device, args.force)
    for name, problem in failures.items():
        print(f"failed: {name}: {problem}")
    if failures:
        raise UserError(
            f"{len(failures)} of {len(chosen)} runs failed, listed above; the same command tries them again"
        )
