"""`main.py table`: gathers finished runs into tables and figures."""

import argparse
from pathlib import Path
from typing import get_args

from utils.config.options import Size, Weights

HELP = "gather finished runs into the paper's Table 1 and figures"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("--runs", type=Path, required=True, help="the folder that holds the runs, at any depth")
    parser.add_argument("--output", type=Path, help="where tables, page and figures go (default: RUNS/table)")
    parser.add_argument("--weights", default="last", choices=get_args(Weights), help="never mixed in one table")
    parser.add_argument("--size", default="img_size", choices=get_args(Size), help="the scores' image size")


def run(args: argparse.Namespace) -> None:
    """Writes the report; prints what is missing and what was written."""
    from report.write import write_report

    report = write_report(args.runs, args.output or args.runs / "table", args.weights, args.size)
    print(report.table.title)
    for line in report.missing:
        print(f"missing: {line}")
    print("written: " + ", ".join(str(path) for path in report.files))
