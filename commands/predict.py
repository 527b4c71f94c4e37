"""`main.py predict`: writes masks of images of any size."""

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from commands.arguments import add_checkpoint_options, add_device_option, checkpoint_file
from utils.errors import ConfigError, UserError

if TYPE_CHECKING:
    from evaluation.threshold import Threshold

HELP = "write masks of images of any size"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    add_checkpoint_options(parser)
    parser.add_argument(
        "--images", nargs="+", required=True, help="folders, searched with their subfolders, files, or quoted patterns"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the masks: PNG, 0/255 or label values")
    parser.add_argument("--probabilities", nargs="?", const="png", choices=("png", "npy"), help="write these as well")
    parser.add_argument("--overlay", action="store_true", help="write the masks over their images as well")
    parser.add_argument(
        "--threshold",
        type=_probability,
        help="probability above which a pixel counts; default: the checkpoint's",
    )
    parser.add_argument(
        "--hysteresis",
        nargs=2,
        type=_probability,
        metavar=("LOW", "HIGH"),
        help="pixels above LOW count where they are connected to one above HIGH",
    )
    parser.add_argument("--tta", choices=("none", "flips"), default="none", help="flips: mean over mirror images")
    parser.add_argument("--tile", action="store_true", help="slide windows over images larger than the model's")
    parser.add_argument("--tile_overlap", type=_share, default=0.25, help="share of a window that overlaps the next")
    parser.add_argument("--skip_existing", action="store_true", help="leave out images whose masks exist already")
    add_device_option(parser)


def run(args: argparse.Namespace) -> None:
    """Predicts every file. Raises: UserError if some could not be predicted."""
    from model import load_model
    from prediction.outputs import Outputs
    from prediction.predict import predict_files
    from prediction.sources import find_sources
    from utils.environment import resolve_device

    sources = find_sources(args.images, args.output)
    predictor = load_model(checkpoint_file(args.checkpoint), args.pretrained_path, resolve_device(args.device))
    predictor = replace(predictor, tile_overlap=args.tile_overlap)
    outputs = Outputs(args.output, predictor, args.probabilities, args.overlay, _chosen(args) or predictor.threshold)
    flips = args.tta == "flips"
    summary = predict_files(sources, outputs, tile=args.tile, flips=flips, skip_existing=args.skip_existing)
    print(f"written: {args.output}, {summary.written} masks" + (f", {summary.kept} kept" if summary.kept else ""))
    for problem in summary.problems:
        print(f"failed: {problem}", file=sys.stderr)
    if summary.problems:
        raise UserError(f"{len(summary.problems)} of {len(sources)} files could not be predicted, listed above")


def _chosen(args: argparse.Namespace) -> "Threshold | None":
    """The threshold of the command line. Raises: ConfigError for two that contradict each other."""
    from evaluation.threshold import Threshold

    if args.hysteresis is None:
        return None if args.threshold is None else Threshold(args.threshold)
    low, high = args.hysteresis
    if args.threshold is not None or low >= high:
        raise ConfigError("--hysteresis takes LOW below HIGH, and the place of --threshold")
    return Threshold(high, low)


def _probability(text: str) -> float:
    return _number(text, lambda value: 0 < value < 1, "between 0 and 1")


def _share(text: str) -> float:
    return _number(text, lambda value: 0 <= value < 1, "from 0 up to, but not, 1")


def _number(text: str, allowed: Callable[[float], bool], words: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not allowed(value):
        raise argparse.ArgumentTypeError(f"must be a number {words}, not '{text}'")
    return value
