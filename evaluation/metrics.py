"""Scores of a prediction against its truth, and how a list of scores is summarized."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import torch

from evaluation.pixels import mask_metrics, probability_metrics
from evaluation.shapes import surface_metrics, topology_metrics

Mask = np.ndarray | torch.Tensor
PAPER_METRICS = ("dice", "hd95")  # always computed
_RESAMPLED_AT_ONCE = 2**17  # values: 1 MB of them


@dataclass(frozen=True)
class PairScore:
    """Score of one prediction against its truth.

    Attributes:
        dice: in [0, 1].
        hd95: in pixels, at least 0; the image diagonal where `one_empty`.
        one_empty: exactly one of the two masks has no foreground, so that no distance is defined.
        others: the further metrics by name; None where one is undefined.
        fov: the score inside the field of view, where there is one.
    """

    dice: float
    hd95: float
    one_empty: bool
    others: Mapping[str, float | None] = field(default_factory=dict)
    fov: Self | None = None


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


def score_pair(
    pred: Mask,
    truth: Mask,
    metrics: Collection[str] = (),
    probability: Mask | None = None,
    fov: Mask | None = None,
    nsd_tolerance: float = 2.0,
) -> PairScore:
    """Dice, HD95 and `metrics` of two bool masks (H, W).

    HD95 is the 95th percentile Hausdorff distance in pixels as MONAI defines it: between the masks' edges (a foreground
    pixel with a 4-neighbour in the background or outside the image), the percentile of each direction on its own
    (linear interpolation), then the larger of the two. Both masks empty: 0. Exactly one empty: the image diagonal
    sqrt(H^2 + W^2). `evaluation.pixels` and `evaluation.shapes` define the other metrics, also for empty masks.

    Args:
        metrics: names of `evaluation.names.METRICS`.
        probability: (H, W) of the foreground, in 0..1; AUC-ROC, average precision and ECE are left out without it.
        fov: (H, W) bool, the field of view. The score inside it counts its pixels alone; for HD95 and the metrics of
            `evaluation.shapes`, both masks are background outside of it. HD95's edges are then those of the cut masks.
        nsd_tolerance: of the surface Dice, in pixels.

    Raises: as `dice`; ValueError for a field of view without a pixel.
    """
    pred, truth = _as_pair(pred, truth)
    others = [name for name in metrics if name not in PAPER_METRICS]
    values = None if probability is None else _as_array(probability)
    score = _score(pred, truth, others, values, None, nsd_tolerance)
    if fov is None:
        return score
    inside, _ = _as_pair(fov, truth)
    if not inside.any():
        raise ValueError("the field of view has no pixel")
    return replace(score, fov=_score(pred & inside, truth & inside, others, values, inside, nsd_tolerance))


def _score(
    pred: np.ndarray,
    truth: np.ndarray,
    others: Collection[str],
    probability: np.ndarray | None,
    inside: np.ndarray | None,
    nsd_tolerance: float,
) -> PairScore:
    """The score of two masks that are background outside of `inside`, whose pixels alone are counted."""
    surfaces = surface_metrics(pred, truth, {*others, "hd95"}, nsd_tolerance)
    counted = slice(None) if inside is None else inside
    found = {
        **mask_metrics(pred[counted], truth[counted], others),
        **({} if probability is None else probability_metrics(probability[counted], truth[counted], others)),
        **surfaces,
        **topology_metrics(pred, truth, others),
    }
    one_empty = bool(pred.any() != truth.any())
    by_name = {name: found[name] for name in others if name in found}
    return PairScore(_dice(pred, truth), surfaces["hd95"], one_empty, by_name)


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


def summarize(scores: Sequence[PairScore]) -> dict[str, Any]:
    """Means, spreads and counts of a list of scores, ready for JSON.

    Returns:
        {"dice": {"mean", "std", "ci95": [low, high]},
         "hd95": {"mean", "std", "ci95": [low, high], "mean_without_empty"}, "n", "n_empty",
         "others": {name: {"mean", "std", "ci95", "n"}}, "fov": the same inside the field of view, or None}.
        `std` is the sample standard deviation over the scores (0 for a single one). `n_empty` counts the pairs with
        exactly one empty mask, whose HD95 is the image diagonal; `mean_without_empty` leaves those out and is None
        when nothing remains. The `n` of a further metric counts the pairs for which it is defined, over which its
        mean is taken; without one, mean, std and ci95 are None.

    Raises:
        ValueError: no scores.
    """
    if not scores:
        raise ValueError("no scores to summarize")
    measured = [score.hd95 for score in scores if not score.one_empty]
    inside = [score.fov for score in scores if score.fov is not None]
    names = dict.fromkeys(name for score in scores for name in score.others)
    return {
        "dice": _spread([score.dice for score in scores]),
        "hd95": {
            **_spread([score.hd95 for score in scores]),
            "mean_without_empty": float(np.mean(measured)) if measured else None,
        },
        "n": len(scores),
        "n_empty": len(scores) - len(measured),
        "others": {name: _spread_of_defined([score.others.get(name) for score in scores]) for name in names},
        "fov": summarize(inside) if inside else None,
    }


def _spread_of_defined(values: Sequence[float | None]) -> dict[str, Any]:
    defined = [value for value in values if value is not None]
    spread = _spread(defined) if defined else {"mean": None, "std": None, "ci95": None}
    return {**spread, "n": len(defined)}


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
