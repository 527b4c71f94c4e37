"""`main.py params`: counts a model's parameters."""

import argparse
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from commands.arguments import add_config_options, checkpoint_file, config_of
from utils.config import Config
from utils.errors import ConfigError

HELP = "count a model's parameters and show its ranks, without weights"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    add_config_options(parser, required=False)
    parser.add_argument("--checkpoint", type=Path, help="a weights file or run folder, in place of --model_config")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> None:
    """Prints trainable and total parameters and each adapted layer's ranks, as tables or JSON."""
    config = _config(args)
    from adapters import adapted_layers
    from model import build_model, load_trained
    from networks.strategies import parameter_counts

    rule = config.ft.rank_rule
    if args.checkpoint and rule != "fixed":  # the file alone has its ranks
        model, _ = load_trained(checkpoint_file(args.checkpoint), args.pretrained_path, args.overrides)
    else:  # only ranks that follow from singular values need the base weights
        model = build_model(config, counted_only=rule not in ("energy", "stable_rank"), encode_text=False)
    counts = parameter_counts(model)
    ranks = {name: layer.ranks for name, layer in adapted_layers(model) if layer.ranks}
    if args.json:
        print(json.dumps({**counts, "percent": round(counts["percent"], 2), "layer_ranks": ranks}))
        return
    print(f"{'module':<16}{'trainable':>14}{'total':>14}")
    for name, module in {**counts["modules"], "all": counts}.items():
        print(f"{name:<16}{module['trainable']:>14,}{module['total']:>14,}")
    print(f"{counts['percent']:.2f}% trainable")
    for line in _rank_lines(ranks):
        print(line)
    if rule == "prune" and not args.checkpoint:
        print("These ranks are those before the cut; params --checkpoint shows those after it.")


def _config(args: argparse.Namespace) -> Config:
    """The config of the options, or that of a checkpoint. Raises: ConfigError without exactly one of them."""
    given = {option for option, value in vars(args).items() if value not in (None, [], False)}
    if "checkpoint" not in given:
        if "model_config" not in given:
            raise ConfigError("main.py params: give --model_config or --checkpoint")
        return config_of(args)
    if others := sorted(given & {"model_config", "data_config", "training_strategy", "seed"}):
        raise ConfigError(f"main.py params: --checkpoint has its own config; leave out --{others[0]}")
    from checkpointing.weights_file import read_weights

    path = checkpoint_file(args.checkpoint)
    return Config.from_yaml(read_weights(path).metadata["config"], str(path), args.overrides)


def _rank_lines(ranks: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """Yields a table of the layers' ranks; layers whose names differ in numbers alone share a line if all are equal."""
    kinds: dict[str, list[str]] = {}
    for name in ranks:
        kinds.setdefault(re.sub(r"\b\d+\b", "*", name), []).append(name)
    rows: dict[str, Mapping[str, int]] = {}
    for kind, names in kinds.items():
        same = len(names) > 1 and all(ranks[name] == ranks[names[0]] for name in names)
        rows |= {f"{kind} ({len(names)} layers)": ranks[names[0]]} if same else {name: ranks[name] for name in names}
    if not rows:
        return
    keys = list(dict.fromkeys(key for of_row in rows.values() for key in of_row))
    width = max(len(name) for name in rows) + 2
    yield "\n" + f"{'ranks':<{width}}" + "".join(f"{key:>10}" for key in keys)
    for name, of_row in rows.items():
        yield f"{name:<{width}}" + "".join(f"{of_row.get(key, '-'):>10}" for key in keys)
