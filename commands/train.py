"""`main.py train`: trains a model, then evaluates it."""

import argparse
from pathlib import Path

from commands.arguments import add_config_options, add_device_option, config_of
from commands.output import print_scores, process_index

HELP = "train, then evaluate (the default command)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    add_config_options(parser)
    parser.add_argument("--save_path", type=Path, help="where the final weights go; the run's records go beside it")
    add_device_option(parser)
    parser.add_argument(
        "--resume",
        nargs="?",
        const=True,
        default=False,
        type=_resume,
        metavar="auto",
        help="continue a stopped run; auto: start if there is none, and leave a finished one as it is",
    )


def run(args: argparse.Namespace) -> None:
    """Trains and evaluates; prints the scores of the last and the best epoch."""
    from training.signals import StopRequests

    with StopRequests() as stop:
        with stop.at_once("before training began"):
            config = config_of(args)
            data = config.require_data()
            from experiments.experiment import train_and_evaluate
            from utils.environment import resolve_device

        fold = f"_fold{data.fold_num}" if data.fold_num else ""
        name = f"{data.name}_{config.strategy}_{config.seed}{fold}"
        save_path = args.save_path or Path("runs") / name / "model.safetensors"
        results = train_and_evaluate(config, save_path, resolve_device(args.device), args.resume, stop)
    if process_index():
        return
    for weights, scores in (("last", results.last), ("best_val", results.best_val)):
        if scores:
            print_scores(f"{weights} (epoch {scores.epoch})", scores)
    if results.checkpoint.path:
        print(f"weights: {save_path}")


def _resume(text: str) -> str:
    if text != "auto":
        raise argparse.ArgumentTypeError(f"takes no value or auto, not '{text}'")
    return text
