"""The options of `prepare`: those of every set, and those that only some converters take."""

import argparse
from pathlib import Path
from typing import Any

# name: (what it is, argparse's settings). A converter takes an option by having a parameter of that name; given to
# another set, it is refused. Each is spelled with underscores or hyphens.
OF_CONVERTERS: dict[str, tuple[str, dict[str, Any]]] = {
    "split": (
        "paper (default): the paper's random split; official: the set's own (arcade, rose, dias, drive)",
        {"choices": ("paper", "official")},
    ),
    "include_test": (
        "drive: add the 20 official test images, as test images",
        {"action": "store_const", "const": True},
    ),
    "observer": ("drive, chase_db1, stare: whose masks, of two observers", {"type": int, "choices": (1, 2)}),
    "subset": ("rose: default SVC", {"choices": ("SVC", "DVC", "SVC_DVC", "ROSE-2")}),
    "projection": (
        "dias: how the frames of a sequence become one image; default min",
        {"choices": ("min", "last", "mean")},
    ),
    "images": ("folder: where your images are", {"type": Path, "metavar": "DIR"}),
    "masks": ("folder: where your masks are; may be the same folder", {"type": Path, "metavar": "DIR"}),
    "pattern": (
        "folder: which mask belongs to which image, by their names without ending: {id} is what both share, {group} a "
        "patient, * any text. '{id}_training={id}_manual1' pairs 21_training.tif with 21_manual1.gif; '{id}_gt' alone "
        "pairs 21.png with 21_gt.png. Left out, one is proposed and shown",
        {"metavar": "IMAGE=MASK"},
    ),
    "threshold": ("folder: mask values above it are foreground; default: values stay", {"type": int, "metavar": "N"}),
    "test_fraction": ("folder: share of the images for testing; default 0.3", {"type": float, "metavar": "F"}),
    "val_fraction": ("folder: share of the images for validation; default 0", {"type": float, "metavar": "F"}),
    "count": ("synthetic, shapes: number of images", {"type": int, "metavar": "N"}),
    "size": ("synthetic, shapes: side of the images, in pixels", {"type": int, "metavar": "N"}),
    "labels": ("synthetic, shapes: number of foreground labels", {"type": int, "metavar": "N"}),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `prepare`, but for seed, to a parser."""
    parser.add_argument(
        "name",
        help="arcade, chase_db1, dias, drive, rose, stare, xray_angio; folder: your own images; synthetic, shapes",
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
    for name, (text, settings) in OF_CONVERTERS.items():
        flags = dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}"))
        parser.add_argument(*flags, help=text, **settings)


def report(summary: dict[str, Any]) -> str:
    """Return what `prepare` did as text: what the converter wants shown, then the counts."""
    splits = ", ".join(f"{count} {split}" for split, count in summary["splits"].items() if count)
    told = {"name", "output", "seed", "images", "splits", "folds", "options", "lines"}
    notes = [
        f"{value} {key.replace('_', ' ')}"
        for key, value in summary.items()
        if key not in told and isinstance(value, int)
    ]
    if "folds" in summary:
        notes.insert(0, f"{len(summary['folds'])} folds of {', '.join(map(str, summary['folds']))}")
    line = "; ".join([f"{summary['output']}: {summary['images']} images ({splits})", f"seed {summary['seed']}", *notes])
    return "\n".join([*summary["lines"], line])
