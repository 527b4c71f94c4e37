"""Wilcoxon's signed-rank test of two methods on the same images, and Holm's correction for several tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.results import ImageKey


@dataclass(frozen=True)
class PairedTest:
    """The result of Wilcoxon's signed-rank test, two-sided, over n pairs.

    Attributes:
        difference: the mean difference.
        n: pairs.
        n_equal: pairs with equal values; they have no sign and are left out of the ranks.
        p: uncorrected; 1 where all pairs are equal.
    """

    difference: float
    n: int
    n_equal: int
    p: float


def paired_test(ours: Mapping[ImageKey, float], other: Mapping[ImageKey, float]) -> PairedTest:
    """Tests two methods by their scores of the same samples.

    Raises:
        ValueError: no samples, or not the same ones.
    """
    if set(ours) != set(other):
        raise ValueError(f"{len(set(ours) ^ set(other))} samples are in one of the two alone")
    return wilcoxon_test([ours[key] - other[key] for key in sorted(ours)])


def wilcoxon_test(differences: Sequence[float] | np.ndarray) -> PairedTest:
    """Tests whether paired differences are symmetric about 0.

    The p-value is exact for few pairs without ties (scipy's choice), else from the normal approximation.

    Raises:
        ValueError: no differences.
    """
    from scipy.stats import wilcoxon

    if not len(differences):
        raise ValueError("no samples")
    values = np.array(differences)
    # Means over seeds that are equal in exact arithmetic may differ in the last bit.
    values[np.abs(values) < 1e-12] = 0.0
    equal = int(np.sum(values == 0.0))
    p = 1.0 if equal == values.size else float(wilcoxon(values, zero_method="wilcox").pvalue)
    return PairedTest(float(values.mean()), values.size, equal, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: adjusted p-values in the order given, at most 1.

    The i-th smallest (from 0) of m values is multiplied by m - i. An adjusted value is at least as large as that of
    every smaller p-value.

    Raises:
        ValueError: a value outside [0, 1].
    """
    p = np.array(p_values, dtype=float)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values must lie in [0, 1], got {list(p_values)}")
    ascending = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[ascending] = np.maximum.accumulate(np.minimum(1.0, p[ascending] * np.arange(p.size, 0, -1)))
    return adjusted.tolist()


def smallest_p(n: int) -> float:
    """The smallest p-value that n pairs can reach: all differences of one sign, 2 of 2^n equally likely patterns."""
    return min(1.0, 2.0 ** (1 - n))
