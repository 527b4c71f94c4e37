"""`main.py params`: counts a model's parameters."""

import argparse
import json

from commands.arguments import add_config_options, config_of

HELP = "count a model's parameters, without weights"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    add_config_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> None:
    """Prints trainable and total parameters, as a table or JSON."""
    config = config_of(args)
    from model import build_model
    from networks.strategies import parameter_counts

    counts = parameter_counts(build_model(config, counted_only=True))
    if args.json:
        print(json.dumps({**counts, "percent": round(counts["percent"], 2)}))
        return
    print(f"{'module':<16}{'trainable':>14}{'total':>14}")
    for name, module in {**counts["modules"], "all": counts}.items():
        print(f"{name:<16}{module['trainable']:>14,}{module['total']:>14,}")
    print(f"{counts['percent']:.2f}% trainable")
