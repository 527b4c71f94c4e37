"""Dice and HD95 of a pair of masks: ours and MONAI's, by kind of mask, on one core.

    python -m benchmarks.metrics [--size 512] [--rounds 11] [--output runs/bench]

Both give the same numbers; the benchmark ends with an error if they don't.
"""

import time
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage

from benchmarks.timing import Comparison, interleaved, parser, publish
from datasets.converters.synthetic import draw_vessels
from evaluation.metrics import score_pair

REPEATS = 3  # of each pair in one timing


def mask_pairs(size: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Prediction and truth (size, size) bool by kind: vessels and what a model makes of them, blobs, extremes."""
    rng = np.random.default_rng(0)
    fundus, angiogram = (draw_vessels(np.random.default_rng(seed), size, seed == 0)[1] == 1 for seed in (0, 1))
    y, x = np.mgrid[:size, :size] / size
    disc = np.hypot(y - 0.5, x - 0.5) < 0.4
    tiny = np.zeros_like(disc)
    tiny[size // 50, size // 60] = True
    return {
        "fundus, good prediction": (_frayed(rng, fundus), fundus),
        "angiogram, good prediction": (_frayed(rng, angiogram), angiogram),
        "fundus, another's vessels": (angiogram, fundus),
        "fundus, noise": (rng.random(disc.shape) < 0.5, fundus),
        "blobs": tuple(ndimage.gaussian_filter(rng.standard_normal(disc.shape), size / 60) > 0 for _ in range(2)),
        "discs": (disc, np.roll(disc, size // 30, 0)),
        "disc, one pixel": (tiny, disc),
    }


def _frayed(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    """Vessels somewhat thinner and thicker by turns, with gaps and spots, as a network predicts them."""
    inside = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
    return inside + 12 * ndimage.gaussian_filter(rng.standard_normal(mask.shape), 3) > 0.3


def ours(pred: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Dice and HD95 by this project."""
    score = score_pair(pred, truth)
    return score.dice, score.hd95


def monai(pred: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Dice and HD95 by MONAI."""
    from monai.metrics import compute_dice, compute_hausdorff_distance

    pair = torch.from_numpy(pred)[None, None], torch.from_numpy(truth)[None, None]  # (1, 1, H, W)
    distance = compute_hausdorff_distance(*pair, include_background=True, percentile=95)
    return float(compute_dice(*pair, include_background=True)), float(distance)


def compare(case: str, pred: np.ndarray, truth: np.ndarray, rounds: int) -> Comparison:
    """Time both ways on one pair. Raises: ValueError if they disagree."""
    values, expected = ours(pred, truth), monai(pred, truth)
    if values[1] != expected[1] or not np.isclose(values[0], expected[0], rtol=1e-6):
        raise ValueError(f"{case}: ours gives Dice and HD95 {values}, MONAI {expected}")
    ways = {
        "MONAI": lambda: [monai(pred, truth) for _ in range(REPEATS)],
        "ours": lambda: [ours(pred, truth) for _ in range(REPEATS)],
    }
    seconds = interleaved(ways, rounds, clock=time.process_time)
    return Comparison(case, seconds, "MONAI", REPEATS, {"dice": values[0], "hd95": values[1]})


def main(argv: Sequence[str] | None = None) -> None:
    """Time all kinds of masks and publish the result."""
    arguments = parser(__doc__)
    arguments.add_argument("--size", type=int, default=512, help="side of the masks in pixels")
    args = arguments.parse_args(argv)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=FutureWarning)  # MONAI's, about its own calls
    pairs = mask_pairs(args.size)
    publish("metrics", [compare(case, *pair, args.rounds) for case, pair in pairs.items()], args.output)


if __name__ == "__main__":
    main()
