"""`main.py export`: writes a trained model in another format."""

import argparse
from pathlib import Path

from commands.arguments import add_checkpoint_options, checkpoint_file
from utils.errors import ConfigError
from utils.files import remove_leftovers

HELP = "write a trained model in another format"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    add_checkpoint_options(parser)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--format", default="sam", choices=("sam", "onnx", "full"))
    parser.add_argument("--half", action="store_true", help="store float16")


def run(args: argparse.Namespace) -> None:
    """Loads the model and writes the file; what can be checked before loading is checked first."""
    from checkpointing.tensor_files import SUFFIXES
    from model import load_model, load_trained
    from utils.extras import extra

    suffixes = {"sam": SUFFIXES, "full": (".safetensors",), "onnx": (".onnx",)}[args.format]
    if args.format == "onnx" and args.half:
        raise ConfigError("--half: is for the formats sam and full")
    if args.output.suffix not in suffixes or args.output.is_dir():
        raise ConfigError(f"--output {args.output}: must be a file name that ends in {', '.join(suffixes)}")
    checkpoint = checkpoint_file(args.checkpoint)
    _refuse(args.output, checkpoint, args.pretrained_path)
    remove_leftovers(args.output.parent, [args.output.name])
    if args.format == "onnx":
        extra("onnx", "--format onnx")
        from prediction.export_onnx import export_onnx

        print(export_onnx(load_model(checkpoint, args.pretrained_path), checkpoint, args.output))
        return
    from prediction.export import export_full, export_sam

    model, config = load_trained(checkpoint, args.pretrained_path)
    _refuse(args.output, config.pretrained_path)
    if args.format == "sam":
        export_sam(model, config, checkpoint, args.output, args.half)
    else:
        export_full(model, config, checkpoint, args.output, args.half)
    print(f"written: {args.output}")


def _refuse(output: Path, *inputs: Path | None) -> None:
    """Raises ConfigError if the output would replace a file that the model is made of."""
    for path in inputs:
        if path is not None and output.exists() and path.exists() and output.samefile(path):
            raise ConfigError(f"--output {output}: is the file that is exported, or its base; give another name")
