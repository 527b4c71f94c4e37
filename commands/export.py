"""`main.py export`: writes a trained model in another format."""

import argparse
from pathlib import Path

from commands.arguments import add_checkpoint_options, checkpoint_file
from utils.config import Config
from utils.config.options import SAM2_ARCH
from utils.errors import ConfigError, UserError
from utils.files import remove_leftovers

_STRIDE = 16  # of the largest patches

HELP = "write a trained model in another format"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    add_checkpoint_options(parser)
    parser.add_argument("--output", type=Path, required=True, help="the file, or with --format hf the folder")
    parser.add_argument("--format", default="sam", choices=("sam", "hf", "onnx", "full"))
    parser.add_argument("--force", action="store_true", help="replace what an export wrote, or another file")
    parser.add_argument("--half", action="store_true", help="store float16")
    parser.add_argument(
        "--img_size", type=int, help="sam and hf, for SAM: resize its positions to images of this side, such as 1024"
    )


def run(args: argparse.Namespace) -> None:
    """Loads the model and writes the file; what can be checked before loading is checked first."""
    from checkpointing.tensor_files import SUFFIXES
    from model import load_model, load_trained
    from utils.extras import extra

    if args.format == "onnx" and args.half:
        raise ConfigError("--half: is for the formats sam, hf and full")
    _check_size(args)
    if args.format == "hf":
        _export_hf(args)
        return
    suffixes = {"sam": SUFFIXES, "full": (".safetensors",), "onnx": (".onnx",)}[args.format]
    if args.output.suffix not in suffixes or args.output.is_dir():
        raise ConfigError(f"--output {args.output}: must be a file name that ends in {', '.join(suffixes)}")
    checkpoint = checkpoint_file(args.checkpoint)
    _refuse(args.output, checkpoint, args.pretrained_path)
    _refuse_existing(args.output, args.force)
    remove_leftovers(args.output.parent, [args.output.name])
    if args.format == "onnx":
        extra("onnx", "--format onnx")
        from prediction.export_onnx import export_onnx

        predictor = load_model(checkpoint, args.pretrained_path)
        print(export_onnx(predictor, checkpoint, args.output))
        _print_scale(predictor.transform.native, predictor.model.img_size)
        return
    from prediction.export import export_full, export_sam

    model, config = load_trained(checkpoint, args.pretrained_path)
    _refuse(args.output, config.pretrained_path)
    if args.format == "full":
        export_full(model, config, checkpoint, args.output, args.half)
        print(f"written: {args.output}")
        return
    from prediction.loading_lines import loading_lines

    _check_size_of(config, args.img_size)
    state = export_sam(model, config, checkpoint, args.output, args.half, args.img_size)
    print(f"written: {args.output}")
    print(loading_lines(config, state, args.output, args.img_size or model.img_size))
    _print_scale(config.data_transforms.scale == "native", args.img_size or model.img_size)


def _export_hf(args: argparse.Namespace) -> None:
    from checkpointing.hugging_face import WEIGHTS
    from checkpointing.tensor_files import SUFFIXES
    from model import load_trained
    from prediction.export_hf import export_hf

    if args.output.is_file() or args.output.suffix in (*SUFFIXES, ".onnx"):
        raise ConfigError(f"--output {args.output}: must be a folder's name")
    checkpoint = checkpoint_file(args.checkpoint)
    _refuse(args.output / WEIGHTS, checkpoint, args.pretrained_path)
    _refuse_existing(args.output / WEIGHTS, args.force)
    model, config = load_trained(checkpoint, args.pretrained_path)
    _refuse(args.output / WEIGHTS, config.pretrained_path)
    _check_size_of(config, args.img_size)
    remove_leftovers(args.output, [WEIGHTS])
    name = export_hf(model, config, checkpoint, args.output, args.half, args.img_size)
    print(f"written: {args.output}")
    print(f"from transformers import {name}\nmodel = {name}.from_pretrained({str(args.output)!r})")
    _print_scale(config.data_transforms.scale == "native", args.img_size or model.img_size)


def _print_scale(native: bool, img_size: int) -> None:
    """Says what the other packages' own preparation of images, which resizes them, would do wrong."""
    if native:
        print(
            "Trained at the images' own scale (data_transforms.scale: native): give it windows of "
            f"{img_size} x {img_size} pixels that are not resized; it was trained on no other scale."
        )


def _check_size(args: argparse.Namespace) -> None:
    if args.img_size is None:
        return
    if args.format not in ("sam", "hf"):
        raise ConfigError("--img_size: is for the formats sam and hf")
    if args.img_size < _STRIDE or args.img_size % _STRIDE:
        raise ConfigError(f"--img_size {args.img_size}: must be a multiple of {_STRIDE}")


def _check_size_of(config: Config, img_size: int | None) -> None:
    if img_size is not None and config.arch == SAM2_ARCH:
        raise ConfigError("--img_size: SAM2's weights fit every image size; leave it out")


def _refuse_existing(output: Path, force: bool) -> None:
    if output.exists() and not force:
        raise UserError(f"{output}: exists already; give another --output, or replace it with --force")


def _refuse(output: Path, *inputs: Path | None) -> None:
    """Raises ConfigError if the output would replace a file that the model is made of."""
    for path in inputs:
        if path is not None and output.exists() and path.exists() and output.samefile(path):
            raise ConfigError(f"--output {output}: is the file that is exported, or its base; give another name")
