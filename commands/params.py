"""`main.py params`: counts a model's parameters."""

import argparse
import json
from pathlib import Path

from commands.arguments import add_config_options, checkpoint_file, config_of
from utils.config import Config
from utils.errors import ConfigError

HELP = "count a model's parameters, without weights"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    add_config_options(parser, required=False)
    parser.add_argument("--checkpoint", type=Path, help="a weights file or run folder, in place of --model_config")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> None:
    """Prints trainable and total parameters, as a table or JSON."""
    config = _config(args)
    from model import build_model
    from networks.strategies import parameter_counts

    counts = parameter_counts(build_model(config, counted_only=True))
    if args.json:
        print(json.dumps({**counts, "percent": round(counts["percent"], 2)}))
        return
    print(f"{'module':<16}{'trainable':>14}{'total':>14}")
    for name, module in {**counts["modules"], "all": counts}.items():
        print(f"{name:<16}{module['trainable']:>14,}{module['total']:>14,}")
    print(f"{counts['percent']:.2f}% trainable")


def _config(args: argparse.Namespace) -> Config:
    """The config of the options, or that of a checkpoint. Raises: ConfigError without exactly one of them."""
    given = {option for option, value in vars(args).items() if value not in (None, [], False)}
    if "checkpoint" not in given:
        if "model_config" not in given:
            raise ConfigError("main.py params: give --model_config or --checkpoint")
        return config_of(args)
    if others := sorted(given & {"model_config", "data_config", "pretrained_path", "training_strategy", "seed"}):
        raise ConfigError(f"main.py params: --checkpoint has its own config; leave out --{others[0]}")
    from checkpointing.weights_file import read_weights

    path = checkpoint_file(args.checkpoint)
    return Config.from_yaml(read_weights(path).metadata["config"], str(path), args.overrides)
