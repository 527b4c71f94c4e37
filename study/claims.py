"""Claims about the order of methods: differences in Dice that a further seed should show too."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np

from report.statistics import wilcoxon_test
from study.plan import Study
from study.results import Result, shared_dice

LEVEL = 0.99  # of the prediction interval: a page makes dozens of claims, and all of them should hold
IMAGE_LEVEL = 0.05


@dataclass(frozen=True)
class Claim:
    """The claim that row `better` has a higher mean Dice over the test images than row `worse`.

    `low` and `high` are the prediction interval of the difference in a further seed. `p` is from Wilcoxon's test over
    the images, uncorrected.
    """

    group: str
    better: str
    worse: str
    difference: float
    low: float
    high: float
    p: float

    @property
    def order(self) -> tuple[str, str, str]:
        """(group, better, worse)."""
        return self.group, self.better, self.worse


class ClaimCheck(NamedTuple):
    """A claim in another seed; `difference` is None where a run is missing."""

    claim: Claim
    seed: int
    difference: float | None

    @property
    def holds(self) -> bool:
        """Whether the difference has the claimed sign."""
        return self.difference is not None and self.difference > 0


def seed_noise(rows: Sequence[np.ndarray]) -> tuple[float, int]:
    """The standard deviation of a row's mean Dice from seed to seed, and its degrees of freedom.

    It is pooled over the rows and excludes what all rows share in a seed: the residual of a table of rows x seeds.

    Args:
        rows: Dice (seeds, images) of each row, all of one shape.
    """
    means = np.array([dice.mean(axis=1) for dice in rows])  # (rows, seeds)
    residual = means - means.mean(1, keepdims=True) - means.mean(0, keepdims=True) + means.mean()
    freedom = (means.shape[0] - 1) * (means.shape[1] - 1)
    return (float(np.sqrt((residual**2).sum() / freedom)) if freedom else 0.0), freedom


def find_claims(group: str, results: Sequence[Result], pairs: Iterable[tuple[str, str]] | None = None) -> list[Claim]:
    """The pairs of rows (all, or `pairs`) whose order the data support.

    A pair is claimed where, over the seeds that all rows share, (1) the 99% prediction interval of the difference in a
    further seed is above 0, and (2) Wilcoxon's test over the test images, averaged over the seeds, has p <= 0.05. For
    two trained rows the interval uses the larger of the pair's own noise and the noise pooled over all trained rows. An
    untrained row varies for another reason, such as its prompt's random start, so its pairs use their own noise alone.
    """
    from scipy.stats import t

    dice = shared_dice(results)
    seeds = len(next(iter(dice.values()), ()))
    if seeds < 2:
        return []
    trained = {result.name for result in results if result.trained}
    pooled = seed_noise([dice[name] for name in dice if name in trained]) if len(trained) > 1 else (0.0, 0)
    claims = []
    for pair in combinations(dice, 2) if pairs is None else pairs:
        better, worse = sorted(pair, key=lambda name: dice[name].mean(), reverse=True)
        by_seed = (dice[better] - dice[worse]).mean(axis=1)
        difference = float(by_seed.mean())
        noise, freedom = pooled if {better, worse} <= trained else (0.0, seeds - 1)
        spread = max(float(by_seed.std(ddof=1)), 2**0.5 * noise)
        half = float(t.ppf((1 + LEVEL) / 2, freedom)) * spread * (1 + 1 / seeds) ** 0.5
        p = wilcoxon_test(dice[better].mean(axis=0) - dice[worse].mean(axis=0)).p
        if difference > half and p <= IMAGE_LEVEL:
            claims.append(Claim(group, better, worse, difference, difference - half, difference + half, p))
    return claims


def check_claims(study: Study, claims: Iterable[Claim], results: Mapping[str, Result]) -> list[ClaimCheck]:
    """Every claim in every seed of `results`, on the datasets that it was made on."""

    def difference(claim: Claim, seed: int) -> float | None:
        shared = study.shared_datasets(claim.group)
        rows = [results[name].on(shared) for name in (claim.better, claim.worse) if name in results]
        if len(rows) < 2 or any(seed not in row.seeds for row in rows):
            return None
        better, worse = (float(row.of_seed(seed).mean()) for row in rows)
        return better - worse

    seeds = sorted({run.results.seed for result in results.values() for run in result.all_runs})
    return [ClaimCheck(claim, seed, difference(claim, seed)) for claim in claims for seed in seeds]
