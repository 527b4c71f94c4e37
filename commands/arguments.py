"""Options that several commands share."""

import argparse
from pathlib import Path
from typing import get_args

from utils.config import Config, load_config
from utils.config.options import Strategy


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that `config_of` reads."""
    parser.add_argument("--data_config", type=Path, help="YAML with the sections data and data_transforms")
    parser.add_argument("--model_config", type=Path, required=True, help="YAML with the model and training sections")
    parser.add_argument("--pretrained_path", type=Path, help="base weights: a SAM checkpoint")
    parser.add_argument("--training_strategy", choices=get_args(Strategy))
    parser.add_argument("--seed", type=seed)
    parser.add_argument("--set", dest="overrides", nargs="+", action="extend", default=[], metavar="KEY=VALUE")


def config_of(args: argparse.Namespace) -> Config:
    """The config that the options of `add_config_options` name."""
    return load_config(
        args.model_config, args.data_config, args.overrides, args.training_strategy, args.pretrained_path, args.seed
    )


def add_checkpoint_options(parser: argparse.ArgumentParser) -> None:
    """Adds --checkpoint and --pretrained_path, its base weights."""
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--pretrained_path", type=Path, help="where the base weights are now")


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """Adds --device."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")


def seed(text: str) -> int:
    """An argument's type: an integer from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0, not '{text}'")
    return int(text)
