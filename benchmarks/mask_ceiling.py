"""The best Dice that mask logits of a given resolution can reach on a data set's own truths.

    python -m benchmarks.mask_ceiling --data_config configs/data/drive.yaml [--set data.root_path=DIR]
                                      [--sizes 256 384 512 768 1024] [--strides 4 2 1] [--images 6]
                                      [--output runs/bench]

A model that works at S pixels and gives logits of side S / stride (SAM: stride 4) enlarges them to S and resizes them
to the image's own size, bilinearly both times. Here logits are fitted to each test mask through the same two steps, by
gradient descent, starting from the mask itself. No image is looked at: it is what a perfect model of that resolution
reaches, as far as the descent finds it. Writes mask_ceiling.json and mask_ceiling.md.
"""

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from data_transforms.data_transforms import resize_shape, to_native
from datasets.data import GeneralDataset
from evaluation.metrics import dice
from utils.config import load_config
from utils.environment import environment_info
from utils.files import write_json, write_text
from utils.losses import SegmentationLoss

MODEL_CONFIG = Path(__file__).resolve().parents[1] / "configs" / "SALT_config.yaml"
STEPS = 150
LEARNING_RATE = 0.3
START = 2.0  # of the logits, positive inside the mask


def ceiling(truth: np.ndarray, size: int, stride: int, steps: int = STEPS) -> float:
    """The Dice at the image's own size of the best logits found.

    Args:
        truth: (H, W) bool.
        size: S, the side of the model's image in pixels.
        stride: S / the side of its logits.
        steps: of gradient descent.
    """
    valid = resize_shape((truth.shape[0], truth.shape[1]), size)
    target = torch.from_numpy(truth).float()[None]
    small = functional.interpolate(target[None], valid, mode="area")[0, 0]
    square = functional.pad(small, (0, size - valid[1], 0, size - valid[0]))
    pooled = functional.avg_pool2d(square[None, None], stride)
    logits = (START * (2 * pooled - 1)).requires_grad_()
    optimizer = torch.optim.Adam([logits], LEARNING_RATE)
    loss = SegmentationLoss("bce+dice")
    best = 0.0
    for step in range(steps + 1):
        native = _native(logits, size, valid, truth.shape)
        if step % 10 == 0:
            best = max(best, dice((native > 0).numpy(), truth))
        optimizer.zero_grad()
        loss(native[None], target).backward()
        optimizer.step()
    return best


def _native(logits: Tensor, size: int, valid: tuple[int, int], shape: Sequence[int]) -> Tensor:
    square = functional.interpolate(logits, (size, size), mode="bilinear", align_corners=False)[0, 0]
    return to_native(square, valid, (shape[0], shape[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_config", type=Path, required=True)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 384, 512, 768, 1024])
    parser.add_argument("--strides", type=int, nargs="+", default=[4, 2, 1])
    parser.add_argument("--images", type=int, default=6, help="test images, the first ones (6)")
    parser.add_argument("--output", type=Path, default=Path("runs/bench"))
    arguments = parser.parse_args()
    config = load_config(MODEL_CONFIG, arguments.data_config, ["sam.weights=random", *arguments.set], "none")
    dataset = GeneralDataset(config, "test", train=False)
    truths = [dataset.native_mask(i) for i in range(min(arguments.images, len(dataset)))]
    found = {
        (size, stride): float(np.mean([ceiling(truth, size, stride) for truth in truths]))
        for size, stride in product(arguments.sizes, arguments.strides)
    }
    lines = ["| image size | " + " | ".join(f"stride {stride}" for stride in arguments.strides) + " |"]
    lines.append("| ---: |" + " ---: |" * len(arguments.strides))
    for size in arguments.sizes:
        lines.append(f"| {size} | " + " | ".join(f"{found[size, stride]:.3f}" for stride in arguments.strides) + " |")
    print("\n".join(lines))
    arguments.output.mkdir(parents=True, exist_ok=True)
    rows = [{"size": size, "stride": stride, "dice": value} for (size, stride), value in found.items()]
    content = {"environment": environment_info(torch.device("cpu")), "images": len(truths), "dice": rows}
    write_json(arguments.output / "mask_ceiling.json", content)
    write_text(arguments.output / "mask_ceiling.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
