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
    chosen_flips,
    chosen_threshold,
)
from commands.output import print_scores
from utils.config import load_config
from utils.config.options import MetricName, Split
from utils.errors import ConfigError

HELP = "evaluate a checkpoint"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    add_checkpoint_options(parser, several=True)
    parser.add_argument("--data_config", type=Path, help="another dataset than the checkpoint's own")
    parser.add_argument("--split", default="test", choices=get_args(Split))
    parser.add_argument("--prompt", choices=("text", "box", "points"), help="of a SAM; default: the checkpoint's")
    parser.add_argument("--clicks", type=_count, help="of --prompt points; default: the checkpoint's prompts.clicks")
    add_prediction_options(parser)
    add_metrics_option(parser, get_args(MetricName))
    add_device_option(parser)


def run(args: argparse.Namespace) -> None:
    """Evaluates and prints the scores."""
    from experiments.checkpoint_scores import PredictionOptions, evaluate_checkpoint
    from utils.device import resolve_device

    data = load_config(None, args.data_config) if args.data_config else None
    flips = chosen_flips(args)
    if (args.prompt not in (None, "text") or args.clicks) and (args.tile or flips or len(args.checkpoint) > 1):
        raise ConfigError("--prompt and --clicks are for one checkpoint and whole images: leave out --tile and --tta")
    threshold = chosen_threshold(args)
    options = PredictionOptions(args.tile, flips, threshold, args.tile_overlap, args.prompt, args.clicks)
    first, *others = (checkpoint_file(path) for path in args.checkpoint)
    device = resolve_device(args.device)
    results = evaluate_checkpoint(first, device, args.split, data, args.pretrained_path, options, others, args.metrics)
    print_scores(f"{results.dataset} {results.split}", results)


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 1000, not '{text}'")
    return int(text)
