"""`main.py test`: evaluates a checkpoint."""

import argparse
from pathlib import Path
from typing import get_args

from commands.arguments import (
    add_checkpoint_options,
    add_device_option,
    add_metrics_option,
    add_prediction_options,
    checkpoint_file,
    chosen_threshold,
)
from commands.output import print_scores
from utils.config import load_config
from utils.config.options import MetricName, Split

HELP = "evaluate a checkpoint"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    add_checkpoint_options(parser, several=True)
    parser.add_argument("--data_config", type=Path, help="another dataset than the checkpoint's own")
    parser.add_argument("--split", default="test", choices=get_args(Split))
    add_prediction_options(parser)
    add_metrics_option(parser, get_args(MetricName))
    add_device_option(parser)


def run(args: argparse.Namespace) -> None:
    """Evaluates and prints the scores."""
    from experiments.scoring import PredictionOptions, evaluate_checkpoint
    from utils.environment import resolve_device

    data = load_config(None, args.data_config) if args.data_config else None
    options = PredictionOptions(args.tile, args.tta == "flips", chosen_threshold(args), args.tile_overlap)
    first, *others = (checkpoint_file(path) for path in args.checkpoint)
    device = resolve_device(args.device)
    results = evaluate_checkpoint(first, device, args.split, data, args.pretrained_path, options, others, args.metrics)
    print_scores(f"{results.dataset} {results.split}", results)
