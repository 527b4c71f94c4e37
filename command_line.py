"""What main.py takes: its commands and their options."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, get_args

from datasets.preparation.options import add_options
from utils.config.options import Strategy
from utils.errors import ConfigError

STRATEGIES = get_args(Strategy)


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other error here does."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{self.prog}: {message}; see --help")


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command; it raises ConfigError for a command line that it cannot take."""
    parser = Parser(prog="main.py", description="SALT: parameter-efficient fine-tuning of SAM for medical images.")
    commands = parser.add_subparsers(dest="command", required=True)
    common = Parser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    for name, (help_text, add_arguments) in COMMANDS.items():
        add_arguments(commands.add_parser(name, help=help_text, description=help_text, parents=[common]))
    return parser


def _train(parser: argparse.ArgumentParser) -> None:
    _add_configs(parser)
    parser.add_argument("--save_path", type=Path, help="where the final weights go; the run's records go beside it")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--resume",
        nargs="?",
        const=True,
        default=False,
        type=_resume,
        metavar="auto",
        help="go on where the run stopped; auto: where there is such a run, else start, and leave a finished one",
    )


def _test(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--data_config", type=Path, help="another dataset than the checkpoint's own")
    parser.add_argument("--pretrained_path", type=Path, help="where the base weights lie now")
    parser.add_argument("--split", default="test", choices=("train", "val", "test"))
    parser.add_argument("--device", default="auto")


def _predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument(
        "--images", nargs="+", required=True, help="folders, searched with their subfolders, files, or quoted patterns"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the masks: PNG, 0/255 or label values")
    parser.add_argument("--probabilities", nargs="?", const="png", choices=("png", "npy"), help="write these as well")
    parser.add_argument("--overlay", action="store_true", help="write the masks over their images as well")
    parser.add_argument("--threshold", type=_probability, default=0.5, help="probability above which a pixel counts")
    parser.add_argument("--tta", choices=("none", "flips"), default="none", help="flips: mean over mirror images")
    parser.add_argument("--tile", action="store_true", help="slide windows over images larger than the model's")
    parser.add_argument("--tile_overlap", type=_share, default=0.25, help="share of a window in common with the next")
    parser.add_argument("--skip_existing", action="store_true", help="leave out images whose masks are there")
    parser.add_argument("--pretrained_path", type=Path, help="where the base weights lie now")
    parser.add_argument("--device", default="auto")


def _params(parser: argparse.ArgumentParser) -> None:
    _add_configs(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _prepare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=_seed, default=0, help="of the split, and of generated images")
    add_options(parser)


def _check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data_config", type=Path, required=True)
    parser.add_argument("--output", type=Path, metavar="PNG", help="contact sheet; default: beside data_split.csv")


def _export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--format", default="sam", choices=("sam", "onnx", "full"))
    parser.add_argument("--half", action="store_true", help="store float16")
    parser.add_argument("--pretrained_path", type=Path, help="where the base weights lie now")


def _view(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--compare", type=Path, help="a second checkpoint, shown beside the first")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--pretrained_path", type=Path, help="where the base weights lie now")
    parser.add_argument("--device", default="auto")


def _download(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="sam_vit_b, clip_vit_b32, ...; --list names them all")
    parser.add_argument("--list", action="store_true", help="the names, addresses and files")
    parser.add_argument("--output", type=Path, default=Path("weights"), help="the folder to keep the file in")
    parser.add_argument("--url", help="another address of the same file; its hash is checked all the same")


def _sweep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plan", type=Path, required=True, help="YAML: output, seeds, datasets, rows, overrides")
    parser.add_argument("--only", nargs="+", default=[], metavar="RUN", help="names row/dataset/seed, * allowed")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dry_run", action="store_true", help="say what is done and what would run")
    parser.add_argument("--list", action="store_true", help="print the runs' names alone, one a line")


def _table(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=Path, required=True, help="the folder that holds the runs, at any depth")
    parser.add_argument("--output", type=Path, help="where tables, page and figures go (default: RUNS/table)")
    parser.add_argument("--weights", default="last", choices=("last", "best_val"), help="never mixed in one table")
    parser.add_argument("--size", default="img_size", choices=("img_size", "native"), help="the scores' image size")


def _demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, default=Path("runs/demo"))
    parser.add_argument("--epochs", type=int, help="fewer or more epochs than the demo's own")


def _add_configs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data_config", type=Path, help="YAML with the sections data and data_transforms")
    parser.add_argument("--model_config", type=Path, required=True, help="YAML with the model and training sections")
    parser.add_argument("--pretrained_path", type=Path, help="base weights: a SAM checkpoint")
    parser.add_argument("--training_strategy", choices=STRATEGIES)
    parser.add_argument("--seed", type=_seed)
    parser.add_argument("--set", dest="overrides", nargs="+", action="extend", default=[], metavar="KEY=VALUE")


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0, not '{text}'")
    return int(text)


def _resume(text: str) -> str:
    if text != "auto":
        raise argparse.ArgumentTypeError(f"is given alone or with auto, not '{text}'")
    return text


def _probability(text: str) -> float:
    return _between(text, lambda value: 0 < value < 1, "between 0 and 1")


def _share(text: str) -> float:
    return _between(text, lambda value: 0 <= value < 1, "from 0 up to, but not, 1")


def _between(text: str, allowed: Callable[[float], bool], words: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not allowed(value):
        raise argparse.ArgumentTypeError(f"must be a number {words}, not '{text}'")
    return value


# name: (what it does, what adds its options).
COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "train": ("train, then evaluate (the default command)", _train),
    "test": ("evaluate a checkpoint", _test),
    "predict": ("write masks of images of any size", _predict),
    "params": ("count a model's parameters, without weights", _params),
    "prepare": ("bring a dataset into this project's layout", _prepare),
    "check": ("check a dataset: files, sizes, labels, splits, duplicates", _check),
    "export": ("write a trained model in another format", _export),
    "view": ("serve a page to this machine alone: drop an image, see its mask", _view),
    "download": ("fetch official weights, with a hash check", _download),
    "sweep": ("run every row of a plan on every dataset with every seed, as far as not done", _sweep),
    "table": ("gather finished runs into the paper's Table 1 and figures", _table),
    "demo": ("nano SAM before and after SALT on generated vessels, in a few minutes on a CPU", _demo),
}
