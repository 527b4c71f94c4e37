"""Metrics that compare pixel by pixel: of the two masks, and of the probabilities."""

from collections.abc import Collection

import numpy as np
import torch

# The names that MONAI has for the metrics of the confusion matrix.
_MONAI_NAMES = {
    "iou": "threat score",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "precision": "precision",
    "accuracy": "accuracy",
    "mcc": "matthews correlation coefficient",
}
MASK_METRICS = frozenset(_MONAI_NAMES)
PROBABILITY_METRICS = frozenset({"auc_roc", "average_precision", "ece"})
CALIBRATION_BINS = 15


def mask_metrics(pred: np.ndarray, truth: np.ndarray, names: Collection[str]) -> dict[str, float | None]:
    """Those of `MASK_METRICS` that `names` holds, of two bool arrays of one shape; None where undefined.

    Sensitivity is undefined without foreground in the truth, specificity without background, and MCC without one of
    them. Where only the prediction lacks foreground, precision is 0: to predict nothing must not pay. MCC is then 0,
    its limit. Both empty: IoU is 1 and precision undefined.
    """
    wanted = [name for name in _MONAI_NAMES if name in names]
    if not wanted:
        return {}
    from monai.metrics import compute_confusion_matrix_metric  # takes seconds to import

    positives, predicted = np.count_nonzero(truth), np.count_nonzero(pred)
    hits = np.count_nonzero(pred & truth)
    misses, false_alarms = positives - hits, predicted - hits
    counts = torch.tensor([hits, false_alarms, truth.size - positives - false_alarms, misses], dtype=torch.float64)
    found = {name: compute_confusion_matrix_metric(_MONAI_NAMES[name], counts).item() for name in wanted}
    at_zero_over_zero = {
        "iou": 1.0,
        "precision": 0.0 if positives else None,
        "mcc": 0.0 if 0 < positives < truth.size else None,
    }
    return {name: at_zero_over_zero.get(name) if np.isnan(value) else value for name, value in found.items()}


def probability_metrics(probability: np.ndarray, truth: np.ndarray, names: Collection[str]) -> dict[str, float | None]:
    """Those of `PROBABILITY_METRICS` that `names` holds, of probabilities in 0..1 and a bool array of one shape.

    AUC-ROC is undefined, None, where the truth lacks foreground or background; average precision, where it lacks
    foreground.
    """
    probability, truth = probability.ravel(), truth.ravel()
    values: dict[str, float | None] = {}
    if "auc_roc" in names or "average_precision" in names:
        values["auc_roc"], values["average_precision"] = _ranking(probability[truth], probability[~truth])
    if "ece" in names:
        values["ece"] = calibration_error(probability, truth)
    return {name: value for name, value in values.items() if name in names}


def _ranking(positives: np.ndarray, negatives: np.ndarray) -> tuple[float | None, float | None]:
    """AUC-ROC and average precision from the scores of all foreground and all background pixels.

    AUC-ROC is the share of pairs in which the foreground pixel has the higher score, ties counting half. Average
    precision is the mean, over the foreground pixels, of the precision at the threshold of each one's score. As
    scikit-learn's, which sorts all pixels with their labels and takes ten times as long.
    """
    if not positives.size:
        return None, None
    positives, negatives = np.sort(positives), np.sort(negatives)
    below = np.searchsorted(negatives, positives, "left")  # the negatives below each positive
    hits = positives.size - np.searchsorted(positives, positives, "left")
    precision = float(np.mean(hits / (hits + negatives.size - below)))
    if not negatives.size:
        return None, precision
    not_above = np.searchsorted(negatives, positives, "right")
    return float(np.mean(below + not_above)) / (2 * negatives.size), precision


def calibration_error(probability: np.ndarray, truth: np.ndarray) -> float:
    """Expected calibration error of the foreground's probability: the mean over all pixels of |p - t| between the bins'
    mean probability p and share of foreground t, in `CALIBRATION_BINS` equal bins (Naeini et al., AAAI 2015)."""
    bins = np.minimum((probability * CALIBRATION_BINS).astype(np.intp), CALIBRATION_BINS - 1)
    expected = np.bincount(bins, weights=probability, minlength=CALIBRATION_BINS)
    observed = np.bincount(bins, weights=truth, minlength=CALIBRATION_BINS)
    return float(np.abs(expected - observed).sum() / truth.size)
