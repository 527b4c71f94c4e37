"""`main.py prepare`: brings a dataset into this project's layout."""

import argparse
import shlex
from pathlib import Path
from typing import Any

from commands.arguments import seed
from utils.files import in_project

HELP = "bring a dataset into this project's layout"

# nano SAM needs no download and trains on a CPU in minutes. SAM's weights go in its place.
_MODEL_CONFIG, _WEIGHTS = "configs/model/nano_sam2_detail.yaml", "weights/nano_sam2.safetensors"
_WINDOW, _MULTIPLE = 512, 32  # its image size, and what another one is a multiple of
_LARGE = (
    f"images of up to {{side}} pixels: the command below trains on crops of {_WINDOW} at their own scale, for fine "
    "structures; where a structure is larger than that or its place in the image tells it apart, add --set "
    "data_transforms.scale=fit, which shows whole images"
)

# name: (help text, argparse's settings). A converter accepts an option by having a parameter of that name; for other
# datasets the option is an error. Each may be spelled with underscores or hyphens.
CONVERTER_OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "split": (
        "paper (default): the paper's random split; official: the set's own (arcade, rose, dias, drive)",
        {"choices": ("paper", "official")},
    ),
    "include_test": (
        "drive: add the 20 official test images, as test images",
        {"action": "store_const", "const": True},
    ),
    "observer": ("drive, chase_db1, stare: whose masks, of two observers", {"type": int, "choices": (1, 2)}),
    "fov_threshold": (
        "chase_db1, stare: write fov/, the field of view, by this rule: the largest connected piece of the pixels "
        "whose brightest channel is above N, holes filled; look at fov/ before you use it. drive has its own files",
        {"type": int, "metavar": "N"},
    ),
    "subset": ("rose: default SVC", {"choices": ("SVC", "DVC", "SVC_DVC", "ROSE-2")}),
    "projection": (
        "dias: how the frames of a sequence become one image; default min",
        {"choices": ("min", "last", "mean")},
    ),
    "images": ("folder, coco: where your images are, searched with its subfolders", {"type": Path, "metavar": "DIR"}),
    "masks": ("folder: where your masks are; default: the folder of the images", {"type": Path, "metavar": "DIR"}),
    "pattern": (
        "folder: which mask belongs to which image, by their names without ending: {id} is what both share, {group} a "
        "patient, * any text. '{id}_training={id}_manual1' pairs 21_training.tif with 21_manual1.gif; '{id}_gt' alone "
        "pairs 21.png with 21_gt.png; with a / it matches paths from the folders. Left out, one is proposed and shown",
        {"metavar": "IMAGE=MASK"},
    ),
    "classes": (
        "folder, npz: the labels of masks in colour (vessel=#ff0000), or of stored values (artery=1 vein=2); what is "
        "black or 0 is background, unless background is named too",
        {"nargs": "+", "action": "extend", "metavar": "NAME=COLOUR"},
    ),
    "threshold": (
        "folder, npz: mask values above it are foreground; default: values stay",
        {"type": int, "metavar": "N"},
    ),
    "annotations": (
        "coco: the COCO files, where images and files are not below --source",
        {"type": Path, "nargs": "+", "action": "extend", "metavar": "JSON"},
    ),
    "test_fraction": ("your own data: share of the images for testing; default 0.3", {"type": float, "metavar": "F"}),
    "val_fraction": ("your own data: share of the images for validation; default 0", {"type": float, "metavar": "F"}),
    "count": ("synthetic, shapes: number of images", {"type": int, "metavar": "N"}),
    "size": ("synthetic, shapes: side of the images, in pixels", {"type": int, "metavar": "N"}),
    "labels": ("synthetic, shapes: number of foreground labels", {"type": int, "metavar": "N"}),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options: those of every dataset, and those that only some converters accept."""
    parser.add_argument("--seed", type=seed, default=0, help="of the split, and of generated images")
    parser.add_argument(
        "name",
        help="arcade, chase_db1, dias, drive, rose, stare, xray_angio; your own data: folder (images and masks), coco, "
        "nnunet, npz (MedSAM's); generated: synthetic, shapes",
    )
    parser.add_argument(
        "--source", type=Path, nargs="+", action="extend", help="archives as downloaded, or the unpacked folder"
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--force", action="store_true", help="replace what is in --output")
    parser.add_argument(
        "--folds", type=int, metavar="K", help="cross-validation: draw K folds; data.fold_num in a config picks one"
    )
    parser.add_argument(
        "--dry_run", "--dry-run", action="store_true", help="say what would be written, and write nothing"
    )
    for name, (text, settings) in CONVERTER_OPTIONS.items():
        flags = dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}"))
        parser.add_argument(*flags, help=text, **settings)


def run(args: argparse.Namespace) -> None:
    """Writes the dataset and prints a summary; with --dry_run, only prints it."""
    from datasets.preparation.data_config import DATA_CONFIG
    from datasets.preparation.prepare import prepare

    options = {key: getattr(args, key) for key in CONVERTER_OPTIONS}
    summary = prepare(
        args.name, args.source, args.output, args.seed, args.force, folds=args.folds, dry_run=args.dry_run, **options
    )
    print(_report(summary))
    if args.dry_run:
        print("dry run: nothing was written")
    elif (config := args.output / DATA_CONFIG).is_file():
        print(_next_command(config, summary["longest_side"]))


def _next_command(config: Path, longest_side: int) -> str:
    """The command that trains on the data, with the model that comes with the project; windows fit small images."""
    model, weights, main = (in_project(name) for name in (_MODEL_CONFIG, _WEIGHTS, "main.py"))
    words = ["python", main, "--data_config", config, "--model_config", model, "--pretrained_path", weights]
    if longest_side <= _WINDOW - _MULTIPLE:
        words += ["--set", f"sam.img_size={-(-longest_side // _MULTIPLE) * _MULTIPLE}"]
    words += ["--save_path", Path("runs") / config.resolve().parent.name / "model.safetensors"]
    lines = [f"data config: {config}", f"next: {shlex.join(map(str, words))}"]
    if longest_side >= 2 * _WINDOW:
        lines[1:1] = [_LARGE.format(side=longest_side)]
    return "\n".join(lines)


def _report(summary: dict[str, Any]) -> str:
    """What `prepare` did as text: the converter's own lines, then the counts."""
    splits = ", ".join(f"{count} {split}" for split, count in summary["splits"].items() if count)
    already_shown = {"name", "output", "seed", "images", "splits", "folds", "options", "longest_side", "lines"}
    notes = [
        f"{value} {key.replace('_', ' ')}"
        for key, value in summary.items()
        if key not in already_shown and isinstance(value, int)
    ]
    if "folds" in summary:
        notes.insert(0, f"{len(summary['folds'])} folds of {', '.join(map(str, summary['folds']))}")
    line = "; ".join([f"{summary['output']}: {summary['images']} images ({splits})", f"seed {summary['seed']}", *notes])
    return "\n".join([*summary["lines"], line])
