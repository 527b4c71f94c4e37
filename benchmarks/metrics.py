"""Times the metrics of one image of DRIVE's size, on one core: Dice and HD95, all of them, and all in two regions.

python -m benchmarks.metrics [--rounds 5] [--output runs/bench]
"""

import time
from collections.abc import Sequence
from functools import partial
from typing import get_args

import numpy as np
import torch
from scipy import ndimage

from benchmarks.timing import Comparison, interleaved, parser, publish
from evaluation.metrics import score_pair
from utils.config.options import MetricName

SIZE = (584, 565)


def compare(rounds: int) -> Comparison:
    """Times each set of metrics on generated curves that cover a tenth of the image, as vessels do."""
    rng = np.random.default_rng(0)
    field = ndimage.gaussian_filter(rng.standard_normal(SIZE), 6)
    truth = np.abs(field) < 0.13 * field.std()
    logits = ndimage.gaussian_filter(8.0 * truth - 4, 1) + ndimage.gaussian_filter(rng.normal(0, 6, SIZE), 1)
    probability = (1 / (1 + np.exp(-logits))).astype(np.float32)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    fov = np.hypot(rows - SIZE[0] / 2, columns - SIZE[1] / 2) < 0.47 * SIZE[1]
    pair, names = (probability > 0.5, truth), get_args(MetricName)
    ways = {
        "Dice and HD95": partial(score_pair, *pair),
        "all": partial(score_pair, *pair, names, probability),
        "all, whole and inside the field of view": partial(score_pair, *pair, names, probability, fov),
    }
    return Comparison("584 x 565, one core", interleaved(ways, rounds, clock=time.process_time), "Dice and HD95")


def main(argv: Sequence[str] | None = None) -> None:
    """Times the sets and publishes the result, in seconds of the process's own time."""
    args = parser(__doc__).parse_args(argv)
    torch.set_num_threads(1)
    publish("metrics", [compare(args.rounds)], args.output)


if __name__ == "__main__":
    main()
