"""Options that several commands share."""

import argparse
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from utils.config import Config, load_config
from utils.config.options import Strategy
from utils.errors import ConfigError

if TYPE_CHECKING:
    from evaluation.threshold import Threshold

log = logging.getLogger(__name__)


def add_config_options(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Adds the options that `config_of` reads; `required`: --model_config must be given."""
    parser.add_argument("--data_config", type=Path, help="YAML with the sections data and data_transforms")
    parser.add_argument(
        "--model_config", type=Path, required=required, help="YAML with the model and training sections"
    )
    parser.add_argument(
        "--pretrained_path",
        type=Path,
        help="base weights: a SAM, MedSAM or SAM 2 file, a folder or (facebook/sam-vit-base) a cached model of Hugging "
        "Face, or a weights file or run folder of this project",
    )
    parser.add_argument("--training_strategy", choices=get_args(Strategy), help="what to train; overrides the config")
    parser.add_argument("--seed", type=seed, help="overrides the config's seed")
    add_set_option(parser)


def add_set_option(parser: argparse.ArgumentParser, what: str = "keys of the config, such as training.lr=1e-3") -> None:
    """Adds --set; `what` says of what."""
    parser.add_argument(
        "--set",
        dest="overrides",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help=f"override {what}",
    )


def config_of(args: argparse.Namespace) -> Config:
    """The config that the options of `add_config_options` name."""
    base = args.pretrained_path
    if base is not None:
        from training.run_weights import base_of

        base = base_of(base)
    return load_config(args.model_config, args.data_config, args.overrides, args.training_strategy, base, args.seed)


def add_checkpoint_options(parser: argparse.ArgumentParser, several: bool = False) -> None:
    """Adds --checkpoint, one or a list where there may be several, and --pretrained_path, its base weights."""
    more: dict[str, Any] = {
        "nargs": "+",
        "help": "weights files of trained models, or run folders; of several, the mean is taken",
    }
    one: dict[str, Any] = {"help": "weights file of a trained model, or its run folder"}
    parser.add_argument("--checkpoint", type=Path, required=True, **(more if several else one))
    parser.add_argument(
        "--pretrained_path",
        type=Path,
        help="base weights, if they have moved since training, and not to weights/ or $SALT_WEIGHTS",
    )


def checkpoint_file(path: Path) -> Path:
    """The weights file that --checkpoint names: the file itself, or that of the run in a folder. Raises: UserError."""
    from training.run_weights import weights_of

    weights = weights_of(path)
    if weights != path:
        log.info("%s: its weights are %s", path, weights.name)
    return weights


def add_metrics_option(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    """Adds --metrics."""
    parser.add_argument(
        "--metrics",
        nargs="+",
        choices=names,
        metavar="NAME",
        help=f"figures beside Dice and HD95: {', '.join(name for name in names if name not in ('dice', 'hd95'))}",
    )


def add_prediction_options(parser: argparse.ArgumentParser) -> None:
    """Adds --threshold, --hysteresis, --tta, --tile and --tile_overlap."""
    parser.add_argument(
        "--threshold", type=probability, help="probability above which a pixel counts; default: the checkpoint's"
    )
    parser.add_argument(
        "--hysteresis",
        nargs=2,
        type=probability,
        metavar=("LOW", "HIGH"),
        help="pixels above LOW count where they are connected to one above HIGH",
    )
    parser.add_argument(
        "--tta", choices=("none", "flips"), help="flips: mean over mirror images; default: the checkpoint's"
    )
    parser.add_argument("--tile", action="store_true", help="slide windows over images larger than the model's")
    parser.add_argument("--tile_overlap", type=_share, default=0.25, help="share of a window that overlaps the next")


def chosen_flips(args: argparse.Namespace) -> bool | None:
    """Whether --tta wants mirror images; None without it."""
    return None if args.tta is None else args.tta == "flips"


def chosen_threshold(args: argparse.Namespace) -> "Threshold | None":
    """The threshold of the command line. Raises: ConfigError for two that contradict each other."""
    from evaluation.threshold import Threshold

    if args.hysteresis is None:
        return None if args.threshold is None else Threshold(args.threshold)
    low, high = args.hysteresis
    if args.threshold is not None or low >= high:
        raise ConfigError("--hysteresis takes LOW below HIGH, and the place of --threshold")
    return Threshold(high, low)


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """Adds --device."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (Apple, untested)")


def seed(text: str) -> int:
    """An argument's type: an integer from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0, not '{text}'")
    return int(text)


def probability(text: str) -> float:
    """An argument's type: a number between 0 and 1."""
    return _number(text, lambda value: 0 < value < 1, "between 0 and 1")


def _share(text: str) -> float:
    return _number(text, lambda value: 0 <= value < 1, "from 0 up to, but not, 1")


def _number(text: str, allowed: Callable[[float], bool], words: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not allowed(value):
        raise argparse.ArgumentTypeError(f"must be a number {words}, not '{text}'")
    return value
