"""`main.py predict`: writes masks of images of any size."""

import argparse
import sys
from pathlib import Path

from commands.arguments import (
    add_checkpoint_options,
    add_device_option,
    add_prediction_options,
    add_set_option,
    checkpoint_file,
    chosen_flips,
    chosen_threshold,
)
from utils.errors import ConfigError, UserError

HELP = "write masks of images of any size"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    add_checkpoint_options(parser, several=True)
    parser.add_argument(
        "--images", nargs="+", required=True, help="folders, searched with their subfolders, files, or quoted patterns"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the masks: PNG, 0/255 or label values")
    parser.add_argument("--probabilities", nargs="?", const="png", choices=("png", "npy"), help="write these as well")
    parser.add_argument("--overlay", action="store_true", help="write the masks over their images as well")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--points", type=Path, help="CSV or JSON of clicks: image, label, x, y, positive")
    shown.add_argument("--boxes", type=Path, help="CSV or JSON of boxes: image, label, x0, y0, x1, y1")
    add_prediction_options(parser)
    add_set_option(parser, "the checkpoint's data_transforms and evaluation, such as data_transforms.a_max=4095")
    parser.add_argument("--skip_existing", action="store_true", help="leave out images whose masks exist already")
    add_device_option(parser)


def run(args: argparse.Namespace) -> None:
    """Predicts every file. Raises: UserError if some could not be predicted."""
    from model import load_models
    from prediction.outputs import Outputs
    from prediction.predict import predict_files
    from prediction.prompt_file import BoxRow, PointRow, PromptFile
    from prediction.sources import find_sources
    from prediction.tiles import check_overlap
    from utils.device import resolve_device

    prompt_file = PromptFile.read(args.points, PointRow) if args.points else None
    prompt_file = PromptFile.read(args.boxes, BoxRow) if args.boxes else prompt_file
    flips = chosen_flips(args)
    if prompt_file and (args.tile or flips):
        raise ConfigError("--points and --boxes are for whole images: leave out --tile and --tta")
    sources = find_sources(args.images, args.output)
    checkpoints = [checkpoint_file(path) for path in args.checkpoint]
    threshold = chosen_threshold(args)
    device = resolve_device(args.device)
    predictor = load_models(checkpoints, args.pretrained_path, device, args.tile_overlap, args.overrides)
    check_overlap(args.tile_overlap, args.tile or predictor.sees_windows)
    outputs = Outputs(args.output, predictor, args.probabilities, args.overlay, threshold or predictor.threshold)
    prompts = prompt_file.of_sources(sources, predictor.labels) if prompt_file else None
    summary = predict_files(
        sources, outputs, tile=args.tile, flips=flips, skip_existing=args.skip_existing, prompts=prompts
    )
    kept = f", {summary.kept} kept" if summary.kept else ""
    left_out = f", {summary.left_out} images without a row left out" if summary.left_out else ""
    print(f"written: {args.output}, {summary.written} masks{kept}{left_out}")
    for problem in summary.problems:
        print(f"failed: {problem}", file=sys.stderr)
    if summary.problems:
        raise UserError(f"{len(summary.problems)} of {len(sources)} files could not be predicted, listed above")
