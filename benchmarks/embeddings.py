"""Times an epoch of decoder training with the frozen encoder in every step, and with its embeddings kept.

    python -m benchmarks.embeddings [--size 512] [--images 8] [--rounds 5] [--output runs/bench]

ViT-B with random weights, strategy decoder, generated images without augmentation, batches of 2. An epoch trains on
--images images and validates on a quarter as many; the first one, which fills the cache, is not timed.
"""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from benchmarks.timing import Comparison, in_own_process, interleaved, parser, publish
from datasets.data import GeneralDataset
from datasets.preparation.prepare import prepare
from model import build_model
from train import finish_epoch, step_batches, train_epoch
from training.processes import Processes
from training.run import Run
from training.run_folder import RunFolder
from training.signals import StopRequests
from utils.config import load_config

WAYS = {"encoder in every step": 0, "embeddings kept": 4}  # GiB


def epoch_of(path: Path, folder: Path, gibibytes: float) -> Callable[[], None]:
    """A function that trains and validates one epoch of a run."""
    config = load_config(path, None, [f"training.cache_embeddings={gibibytes}"])
    torch.manual_seed(0)
    model = build_model(config, encode_text=False)
    train_set = GeneralDataset(config, "train", train=True, seed=config.seed)
    val_set = GeneralDataset(config, "val", train=False)
    processes = Processes(torch.device("cpu"), config.training.precision)
    run = Run(model, config, RunFolder(folder), processes, StopRequests(), lambda *_: None, train_set, val_set)
    batches = step_batches(run)
    loader = DataLoader(run.train_set, batch_sampler=batches)

    def epoch() -> None:
        train_epoch(run, loader, batches)
        finish_epoch(run)

    return epoch


def compare(size: int, images: int, rounds: int, sam_type: str = "base") -> Comparison:
    """The seconds of an epoch in both ways."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        prepare("synthetic", None, data, count=images * 3 // 2, size=max(64, size))
        config = Path(folder) / "model.yaml"
        config.write_text(
            f"sam: {{sam_type: {sam_type}, img_size: {size}, weights: random}}\nprompts: {{text_encoder: learned}}\n"
            f"data: {{root_path: {data}, label_names: [Background, Vessel]}}\nstrategy: decoder\n"
            "training: {batch_size: 2, num_epochs: 1000}\n"
        )
        with ExitStack() as processes:
            ways = {
                way: processes.enter_context(in_own_process(partial(epoch_of, config, Path(folder) / "run", gibibytes)))
                for way, gibibytes in WAYS.items()
            }
            seconds = interleaved(ways, rounds, 1)
    notes = {"size": size, "images": images, "sam_type": sam_type}
    return Comparison(f"an epoch, {sam_type} at {size}", seconds, next(iter(WAYS)), notes=notes)


def main(argv: Sequence[str] | None = None) -> None:
    """Times both ways and publishes the result."""
    arguments = parser(__doc__)
    arguments.add_argument("--size", type=int, default=512, help="side of the images in pixels")
    arguments.add_argument("--images", type=int, default=8, help="number of training images")
    args = arguments.parse_args(argv)
    publish("embeddings", [compare(args.size, args.images, args.rounds)], args.output)


if __name__ == "__main__":
    main()
