"""Times how long a SALT model takes to build, load its base weights and decompose every adapted weight.

    python -m benchmarks.startup [--sam_type base] [--rounds 5] [--output runs/bench]

It runs without the cache of decompositions and with it, on a file of the official format with random values. Imports
are not timed.
"""

import os
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from unittest import mock

import torch

from benchmarks.step import TABLE1
from benchmarks.timing import MIN_ROUNDS, Comparison, interleaved, parser, publish
from model import build_model
from utils.config import load_config


def compare(sam_type: str, size: int, rounds: int, overrides: Sequence[str] = ()) -> Comparison:
    """Times both ways in a temporary folder."""
    options = [f"sam.sam_type={sam_type}", f"sam.img_size={size}", *overrides]
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, {"SALT_CACHE": folder}):
        weights = _official_file(Path(folder) / "sam.pth", options)
        configs = {
            way: load_config(TABLE1 / "salt_4.yaml", None, [*options, f"ft.svd_cache={cached}"], None, weights)
            for way, cached in (("decomposed", "false"), ("from the cache", "true"))
        }
        ways = {way: partial(build_model, config, encode_text=False) for way, config in configs.items()}
        seconds = interleaved(ways, rounds)
        cache_mib = sum(file.stat().st_size for file in Path(folder).rglob("*.safetensors")) / 2**20
    return Comparison(f"{sam_type}, {size}", seconds, "decomposed", notes={"cache_mib": cache_mib})


def _official_file(path: Path, options: Sequence[str]) -> Path:
    config = load_config(TABLE1 / "sam_text.yaml", None, [*options, "sam.weights=random", "sam.img_size=1024"])
    torch.save(build_model(config, encode_text=False).base_state(), path)
    return path


def main(argv: Sequence[str] | None = None) -> None:
    """Times both ways and publishes the result."""
    arguments = parser(__doc__)
    arguments.set_defaults(rounds=MIN_ROUNDS)
    arguments.add_argument("--sam_type", default="base", choices=("nano", "base", "large", "huge"))
    arguments.add_argument("--size", type=int, default=512, help="side of the images in pixels")
    arguments.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="options of the model's config")
    args = arguments.parse_args(argv)
    publish("startup", [compare(args.sam_type, args.size, args.rounds, args.set)], args.output)


if __name__ == "__main__":
    main()
