"""`main.py score`: scores a folder of masks, of this project or any other tool."""

import argparse
from pathlib import Path

from commands.arguments import add_metrics_option, probability
from commands.output import print_scores
from utils.config.options import MASK_METRIC_NAMES

HELP = "score a folder of masks, also another tool's, against the true ones"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("--predictions", type=Path, required=True, metavar="DIR", help="searched with its subfolders")
    parser.add_argument("--truth", type=Path, required=True, metavar="DIR", help="the true masks")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="of the scores; default: PREDICTIONS_scores beside it"
    )
    parser.add_argument(
        "--pattern",
        metavar="TRUTH=PREDICTION",
        help="which prediction belongs to which true mask, by their names without ending, as for prepare folder; left "
        "out, one is proposed",
    )
    parser.add_argument(
        "--classes",
        nargs="+",
        action="extend",
        metavar="NAME=COLOUR",
        help="names of labels by value (artery=1 vein=2) or colour (artery=#ff0000)",
    )
    add_metrics_option(parser, MASK_METRIC_NAMES)
    parser.add_argument(
        "--threshold", type=probability, help="predictions are probabilities of one label: above it is foreground"
    )


def run(args: argparse.Namespace) -> None:
    """Scores, prints, and says where the scores are."""
    from experiments.score_masks import score_masks

    output = args.output or args.predictions.resolve().with_name(f"{args.predictions.resolve().name}_scores")
    results = score_masks(
        args.predictions, args.truth, output, args.pattern, args.classes, args.threshold, args.metrics
    )
    for label, scores in (results.labels or {results.dataset: results}).items():
        print_scores(label, scores)
    print(f"written: {output}")
