"""Dice and HD95 of binary masks, and how a list of scores is summarized."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

Mask = np.ndarray | torch.Tensor
_RESAMPLED_AT_ONCE = 2**17  # values: 1 MB of them


@dataclass(frozen=True)
class PairScore:
    """Score of one prediction against its truth.

    Attributes:
        dice: in [0, 1].
        hd95: in pixels, at least 0; the image diagonal where `one_empty`.
        one_empty: exactly one of the two masks has no foreground, so that no distance is defined.
    """

    dice: float
    hd95: float
    one_empty: bool


def dice(pred: Mask, truth: Mask) -> float:
    """Dice coefficient 2|A & B| / (|A| + |B|) of two bool masks (H, W); 1.0 when both are empty.

    Raises:
        TypeError: a mask that is not bool.
        ValueError: masks that are not (H, W) or differ in shape.
    """
    return _dice(*_as_pair(pred, truth))


def batch_dice(pred: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Dice of each pair of a batch, (B, H, W) bool each -> (B,) float; both empty: 1. For progress and validation."""
    overlap, area = (pred & truth).sum((1, 2)), pred.sum((1, 2)) + truth.sum((1, 2))
    return torch.where(area > 0, 2 * overlap / area.clamp_min(1), 1.0)


def hd95(pred: Mask, truth: Mask) -> float:
    """95th percentile Hausdorff distance in pixels of two bool masks (H, W), as MONAI defines it.

    The distance runs between the masks' edges (a foreground pixel with a 4-neighbour in the background or outside the
    image); each direction's 95th percentile is taken on its own (linear interpolation), then the larger of the two.
    Both masks empty: 0. Exactly one empty: the image diagonal sqrt(H^2 + W^2).

    Raises:
        TypeError: a mask that is not bool.
        ValueError: masks that are not (H, W) or differ in shape.
    """
    return _hd95(*_as_pair(pred, truth))


def score_pair(pred: Mask, truth: Mask) -> PairScore:
    """Dice and HD95 of two bool masks (H, W); errors as in `dice`."""
    pair = _as_pair(pred, truth)
    one_empty = bool(pair[0].any() != pair[1].any())
    return PairScore(dice=_dice(*pair), hd95=_hd95(*pair), one_empty=one_empty)


def bootstrap_interval(
    values: Sequence[float] | np.ndarray, n: int = 2000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval (low, high) of the mean of `values`.

    Args:
        values: at least one number; one number alone gives an interval of width 0.
        n: resamples, each of len(values) draws with replacement.
        seed: of the generator made for this call, so that equal values give equal intervals.
        level: probability between the two ends, in (0, 1).

    Raises:
        ValueError: no values, or `n` or `level` out of range.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"expected at least one value in one dimension, got shape {array.shape}")
    if n < 1 or not 0.0 < level < 1.0:
        raise ValueError(f"expected n >= 1 and 0 < level < 1, got n={n} and level={level}")
    generator = np.random.default_rng(seed)
    rows = max(1, _RESAMPLED_AT_ONCE // array.size)  # resamples at a time: memory stays small however many there are
    shapes = [(min(rows, n - first), array.size) for first in range(0, n, rows)]
    means = np.concatenate([array[generator.integers(array.size, size=shape)].mean(axis=1) for shape in shapes])
    low, high = np.quantile(means, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)


def summarize(scores: Sequence[PairScore]) -> dict:
    """Means, spreads and counts of a list of scores, ready for JSON.

    Returns:
        {"dice": {"mean", "std", "ci95": [low, high]},
         "hd95": {"mean", "std", "ci95": [low, high], "mean_without_empty"}, "n", "n_empty"}.
        `std` is the sample standard deviation over the scores (0 for a single one). `n_empty` counts the pairs with
        exactly one empty mask, whose HD95 is the image diagonal; `mean_without_empty` leaves those out and is None
        when nothing remains.

    Raises:
        ValueError: no scores.
    """
    if not scores:
        raise ValueError("no scores to summarize")
    distances = [score.hd95 for score in scores]
    measured = [score.hd95 for score in scores if not score.one_empty]
    return {
        "dice": _spread([score.dice for score in scores]),
        "hd95": {**_spread(distances), "mean_without_empty": float(np.mean(measured)) if measured else None},
        "n": len(scores),
        "n_empty": len(scores) - len(measured),
    }


def _spread(values: list[float]) -> dict:
    std = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {"mean": float(np.mean(values)), "std": std, "ci95": list(bootstrap_interval(values))}


def _as_pair(pred: Mask, truth: Mask) -> tuple[np.ndarray, np.ndarray]:
    pair = _as_array(pred), _as_array(truth)
    for mask in pair:
        # A float or 0/255 mask would count every nonzero value as foreground, probabilities included.
        if mask.dtype != np.bool_:
            raise TypeError(f"expected a bool mask, got {mask.dtype}")
    if pair[0].ndim != 2 or pair[0].shape != pair[1].shape:
        raise ValueError(f"expected two masks (H, W), got {pair[0].shape} and {pair[1].shape}")
    return pair


def _as_array(mask: Mask) -> np.ndarray:
    return mask.detach().cpu().numpy() if isinstance(mask, torch.Tensor) else np.asarray(mask)


def _dice(pred: np.ndarray, truth: np.ndarray) -> float:
    total = np.count_nonzero(pred) + np.count_nonzero(truth)
    return 1.0 if total == 0 else 2.0 * np.count_nonzero(pred & truth) / total


def _hd95(pred: np.ndarray, truth: np.ndarray) -> float:
    if not pred.any() and not truth.any():
        return 0.0
    if not pred.any() or not truth.any():
        return math.hypot(*pred.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # from MONAI's own calls and imports
        from monai.metrics import compute_hausdorff_distance  # takes seconds to import

        # Copies: torch takes neither views with negative strides nor read-only arrays.
        y_pred, y = (torch.from_numpy(mask.copy())[None, None] for mask in (pred, truth))  # (1, 1, H, W)
        return compute_hausdorff_distance(y_pred, y, include_background=True, percentile=95).item()
