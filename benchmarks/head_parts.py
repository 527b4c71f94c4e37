"""What each input of the detail head is worth: training with one of them replaced by 0.

    python -m benchmarks.head_parts --data_config configs/data/drive.yaml [--seeds 0 1 2] [--set training.num_epochs=30]
                                    [--output runs/bench/head_parts]

Every row is a whole run of configs/model/nano_sam2_detail.yaml, at 384 pixels and on whole images unless --set says
otherwise, and its weights after the last epoch. Finished runs in --output are not repeated. Writes head_parts.md.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from evaluation.results import AtSize
from experiments.experiment import train_and_evaluate
from networks.detail_head import DetailHead
from utils.config import load_config
from utils.files import write_text

ROOT = Path(__file__).resolve().parents[1]
OVERRIDES = [
    "sam.img_size=384",
    "data_transforms.scale=fit",
    "training.num_epochs=30",
    "training.val_every=1000",
    "data.val=train",
]
OFFICIAL = "no head"
# Of the head's inputs: the image at half of its side, at a quarter, the mask decoder's features, its logits.
WITHOUT = {
    OFFICIAL: (),
    "all inputs": (),
    "no image at half of its side": (0,),
    "no image at a quarter": (1,),
    "no image": (0, 1),
    "no decoder features": (2,),
    "no logits": (3,),
    "no features, no logits": (2, 3),
}
COLUMNS = {"Dice": "dice", "HD95": "hd95", "clDice": "cldice", "of thin vessels": "thin_sensitivity"}


def without(inputs: Sequence[int]) -> mock._patch:
    """Replaces the named inputs of every detail head by 0 within the `with` block that it opens."""
    forward = DetailHead.forward

    def ablated(head: DetailHead, embedded: tuple[Tensor, Tensor], features: Tensor, logits: Tensor) -> Tensor:
        fine, coarse, features, logits = (
            torch.zeros_like(value) if i in inputs else value for i, value in enumerate((*embedded, features, logits))
        )
        return forward(head, (fine, coarse), features, logits)

    return mock.patch.object(DetailHead, "forward", ablated)


def scores_of(name: str, seed: int, data_config: Path, overrides: Sequence[str], output: Path) -> AtSize:
    """The test scores at the images' own size of one run, which is trained if it is not in `output`."""
    metrics = "evaluation.metrics=[dice,hd95,cldice,thin_sensitivity]"
    head = f"sam.mask_head={'official' if name == OFFICIAL else 'detail'}"
    config = load_config(
        ROOT / "configs" / "model" / "nano_sam2_detail.yaml",
        data_config,
        [*OVERRIDES, metrics, head, *overrides],
        pretrained_path=ROOT / "weights" / "nano_sam2.safetensors",
        seed=seed,
    )
    folder = output / name.replace(" ", "_") / f"seed{seed}"
    with without(WITHOUT[name]):
        return train_and_evaluate(config, folder / "model.safetensors", torch.device("cpu"), "auto").last.native


def row(name: str, found: Sequence[AtSize]) -> str:
    """A row of the table: the mean of each column over the seeds, and the seeds' standard deviation of Dice."""
    values = {column: [_mean(scores, metric) for scores in found] for column, metric in COLUMNS.items()}
    cells = [f"{np.mean(of):.{1 if column == 'HD95' else 3}f}" for column, of in values.items()]
    if len(found) > 1:
        cells[0] += f" ± {np.std(values['Dice'], ddof=1):.3f}"
    return "| " + " | ".join([name, *cells]) + " |"


def _mean(scores: AtSize, metric: str) -> float:
    measure = scores.measure(metric)
    return float("nan") if measure is None or measure.mean is None else measure.mean


def main(argv: Sequence[str] | None = None) -> None:
    """Trains all rows, seed after seed, and prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_config", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--inputs", nargs="+", choices=WITHOUT, default=list(WITHOUT), help="the rows; default: all")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="options of the config")
    parser.add_argument("--output", type=Path, default=Path("runs/bench/head_parts"))
    args = parser.parse_args(argv)
    found: dict[str, list[AtSize]] = {name: [] for name in args.inputs}
    for seed in args.seeds:
        for name, scores in found.items():
            scores.append(scores_of(name, seed, args.data_config, args.set, args.output))
    heading = f"| the head | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}"
    table = "\n".join([heading, *(row(name, scores) for name, scores in found.items())]) + "\n"
    print(table, end="")
    write_text(args.output / "head_parts.md", table)


if __name__ == "__main__":
    main()
