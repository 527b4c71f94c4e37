"""`main.py train`: trains a model, then evaluates it."""

import argparse
import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from commands.arguments import add_config_options, add_device_option, config_of
from commands.output import print_scores, process_index

if TYPE_CHECKING:
    from evaluation.results import RunResults
    from training.run_folder import RunFolder

HELP = "train, then evaluate (the default command)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    add_config_options(parser)
    parser.add_argument(
        "--save_path",
        type=Path,
        help="where the final weights go; the run's records go beside it (default: in runs/)",
    )
    add_device_option(parser)
    parser.add_argument(
        "--resume",
        nargs="?",
        const=True,
        default=False,
        type=_resume,
        metavar="auto",
        help="continue a stopped run, or a finished one for more epochs; auto: start if there is none",
    )


def run(args: argparse.Namespace) -> None:
    """Trains and evaluates; prints the scores of the last and the best epoch, and where everything lies."""
    from training.signals import StopRequests

    with StopRequests() as stop:
        with stop.at_once("before training began"):
            config = config_of(args)
            data = config.require_data()
            from experiments.experiment import train_and_evaluate
            from training.run_folder import RunFolder
            from training.text_log import append_output
            from utils.device import resolve_device

        fold = f"_fold{data.fold_num}" if data.fold_num else ""
        name = f"{data.name}_{config.strategy}_{config.seed}{fold}"
        save_path = args.save_path or Path("runs") / name / "model.safetensors"
        folder = RunFolder.of(save_path)
        before = _modified(folder.results)
        results = train_and_evaluate(config, save_path, resolve_device(args.device), args.resume, stop)
    if process_index():
        return
    text = io.StringIO()
    with redirect_stdout(text):
        _print_results(results, folder, save_path)
    print(text.getvalue(), end="")
    if _modified(folder.results) != before:  # else the run was finished before
        append_output(folder.log, text.getvalue())


def _print_results(results: "RunResults", folder: "RunFolder", save_path: Path) -> None:
    """Prints the scores, and where everything lies."""
    for weights, scores in (("last", results.last), ("best_val", results.best_val)):
        if scores:
            chosen_on = results.epoch_chosen_on if weights == "best_val" else None
            chosen = f", epoch chosen on {chosen_on}" if chosen_on else ""
            print_scores(f"{weights} (epoch {scores.epoch}{chosen})", scores)
    if results.checkpoint.path:
        print(f"weights: {save_path}, and of the best epoch {folder.best_weights}")
    print(f"scores: {folder.results}, of each image {folder.per_image}")
    print(f"pictures: {folder.overlays}, masks of the test images {folder.predictions}")
    if results.checkpoint.path:
        print(f"training: {folder.curves}, {folder.metrics}")
    print(f"log: {folder.log}")


def _modified(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.is_file() else None


def _resume(text: str) -> str:
    if text != "auto":
        raise argparse.ArgumentTypeError(f"takes no value or auto, not '{text}'")
    return text
