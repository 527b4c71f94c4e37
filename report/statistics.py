"""Paired tests of two methods over the same images, and their correction for being many."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class PairedTest:
    """Wilcoxon's signed-rank test, two-sided, of `ours` against `other` over n pairs.

    Attributes:
        difference: mean of ours - other.
        n: pairs.
        n_equal: pairs whose two values are equal; they carry no sign and are left out of the ranks.
        p: of the test alone; 1 where all pairs are equal.
    """

    difference: float
    n: int
    n_equal: int
    p: float


def paired_test(ours: Mapping[Key, float], other: Mapping[Key, float]) -> PairedTest:
    """Tests two methods by their scores of the same samples.

    The p-value is exact for few pairs without ties (scipy's choice), else from the normal approximation.

    Raises:
        ValueError: no samples, or not the same ones.
    """
    if set(ours) != set(other):
        raise ValueError(f"{len(set(ours) ^ set(other))} samples are in one of the two alone")
    if not ours:
        raise ValueError("no samples")
    from scipy.stats import wilcoxon

    differences = np.array([ours[key] - other[key] for key in sorted(ours)])
    # Means over seeds that are equal in exact arithmetic may differ in the last bit, which is no difference.
    differences[np.abs(differences) < 1e-12] = 0.0
    equal = int(np.sum(differences == 0.0))
    p = 1.0 if equal == differences.size else float(wilcoxon(differences, zero_method="wilcox").pvalue)
    return PairedTest(float(differences.mean()), differences.size, equal, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: adjusted p-values in the order given, at most 1.

    With m values, the i-th smallest (from 0) is multiplied by m - i, and none is below a smaller one's.

    Raises:
        ValueError: a value outside [0, 1].
    """
    if any(not 0.0 <= p <= 1.0 for p in p_values):
        raise ValueError(f"p-values must lie in [0, 1], got {list(p_values)}")
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def smallest_p(n: int) -> float:
    """The smallest p that n pairs can reach: all differences of one sign, 2 of 2^n equally likely sign patterns."""
    return min(1.0, 2.0 ** (1 - n))
