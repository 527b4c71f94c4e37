"""`main.py view`: serves a page that shows a model's masks."""

import argparse
from pathlib import Path

from commands.arguments import add_checkpoint_options, add_device_option, checkpoint_file

HELP = "serve a page to this machine alone: drop an image, see its mask"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    add_checkpoint_options(parser)
    parser.add_argument("--compare", type=Path, help="a second checkpoint, shown beside the first")
    parser.add_argument("--port", type=_port, default=7860)
    add_device_option(parser)


def run(args: argparse.Namespace) -> None:
    """Serves the page until Ctrl-C."""
    from model import load_model
    from prediction.view import serve
    from utils.device import resolve_device

    checkpoints = [checkpoint_file(path) for path in (args.checkpoint, args.compare) if path]
    device = resolve_device(args.device)
    # A generator: the models load once Gradio is known to be installed.
    serve(checkpoints, (load_model(path, args.pretrained_path, device) for path in checkpoints), args.port)


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"must be a port from 1 to 65535, not '{text}'")
    return int(text)
