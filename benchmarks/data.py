"""Training images a second on one core: ours, from memory and decoded each time, and a plain torchvision pipeline.

    python -m benchmarks.data [--root data/DRIVE] [--img_size 512] [--rounds 11] [--output runs/bench]

The augmentation is that of configs/data/drive.yaml. Without --root, generated fundus images of DRIVE's size are used.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.plain_data import PlainDataset
from benchmarks.timing import Comparison, interleaved, parser, publish
from datasets.converters.synthetic import draw_vessels
from datasets.data import GeneralDataset
from utils.config import load_config

CONFIG = Path("configs/data/drive.yaml")
DRIVE_SIZE = (584, 565)  # height, width


def draw_set(root: Path, count: int, size: tuple[int, int]) -> None:
    """Write `count` generated fundus images of `size` (H, W) and their masks in the project's layout."""
    rows = ["imgs,split"]
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for i in range(count):
        image, labels = draw_vessels(np.random.default_rng(i), max(size), fundus=True)
        Image.fromarray(image[: size[0], : size[1]]).save(root / "images" / f"{i}.png")
        mask = (labels[: size[0], : size[1]] == 1).astype(np.uint8) * 255
        Image.fromarray(mask).save(root / "masks" / f"{i}.png")
        rows.append(f"{i}.png,train")
    (root / "data_split.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def compare(root: Path, img_size: int, rounds: int) -> Comparison:
    """Time one pass over the training images of the set at `root`, by each way."""
    config = load_config(None, CONFIG, [f"data.root_path={root}", f"data_transforms.img_size={img_size}"])
    kept = GeneralDataset(config, "train", train=True)
    read = GeneralDataset(config, "train", train=True, cache_bytes=0)
    plain = PlainDataset([(sample.image_path, sample.mask_path) for sample in kept.samples], config.data_transforms)
    ways = {
        "plain": lambda: [plain[i] for i in range(len(plain))],
        "ours, decoded each time": lambda: [read[i] for i in range(len(read))],
        "ours": lambda: [kept[i] for i in range(len(kept))],
    }
    seconds = interleaved(ways, rounds, clock=time.process_time)
    return Comparison(f"training image at {img_size}", seconds, "plain", len(kept), {"images": len(kept)})


def main(argv: Sequence[str] | None = None) -> None:
    """Time the pipelines and publish the result."""
    arguments = parser(__doc__)
    arguments.add_argument("--root", type=Path, help="a prepared set of 8-bit images; by default one is generated")
    arguments.add_argument("--img_size", type=int, default=512, help="the model's image size")
    arguments.add_argument("--count", type=int, default=14, help="number of generated images")
    arguments.add_argument("--size", type=int, nargs=2, default=DRIVE_SIZE, help="height and width of generated images")
    args = arguments.parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if args.root is None:
            draw_set(Path(folder), args.count, tuple(args.size))
        publish("data", [compare(args.root or Path(folder), args.img_size, args.rounds)], args.output)


if __name__ == "__main__":
    main()
