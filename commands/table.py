"""`main.py table`: gathers finished runs into tables and figures."""

import argparse
from pathlib import Path
from typing import get_args

from utils.config.options import MetricName, Region, Size, Weights

HELP = "gather finished runs into the paper's Table 1 and figures"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("--runs", type=Path, required=True, help="the folder that holds the runs, at any depth")
    parser.add_argument("--output", type=Path, help="where tables, page and figures go (default: RUNS/table)")
    parser.add_argument("--weights", default="last", choices=get_args(Weights), help="never mixed in one table")
    parser.add_argument("--size", default="img_size", choices=get_args(Size), help="the scores' image size")
    parser.add_argument(
        "--columns",
        type=_metrics,
        default=["dice", "hd95"],
        metavar="METRIC,...",
        help="the metrics, joined by commas; default dice,hd95",
    )
    parser.add_argument(
        "--region", default="whole", choices=get_args(Region), help="whole images, or the field of view alone"
    )


def run(args: argparse.Namespace) -> None:
    """Writes the report; prints what is missing and what was written."""
    from report.write import write_report

    report = write_report(
        args.runs, args.output or args.runs / "table", args.weights, args.size, args.columns, args.region
    )
    print(report.table.title)
    for line in report.missing:
        print(f"missing: {line}")
    print("written: " + ", ".join(str(path) for path in report.files))


def _metrics(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in get_args(MetricName)]
    if unknown or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(
            f"must join some of {', '.join(get_args(MetricName))} with commas, each at most once, not '{text}'"
        )
    return names
