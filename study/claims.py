"""Which differences of Dice the data support, so that a further seed should show them too."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from report.statistics import paired_test
from study.results import Result
from utils.errors import UserError

LEVEL = 0.99  # of the interval for a further seed: a page makes dozens of claims, and all are to hold
IMAGE_LEVEL = 0.05
COLUMNS = ("group", "better", "worse", "difference", "low", "high", "p")


@dataclass(frozen=True)
class Claim:
    """`better` has a higher mean Dice over the test images than `worse`, by `difference`.

    `low` and `high` bound that difference for a further seed; `p` is Wilcoxon's over the images, uncorrected.
    """

    group: str
    better: str
    worse: str
    difference: float
    low: float
    high: float
    p: float


def seed_noise(rows: Sequence[np.ndarray]) -> tuple[float, int]:
    """The standard deviation of one row's mean Dice from seed to seed, and its degrees of freedom.

    Pooled over the rows, what all rows have in common in a seed left out (the residual of a table of rows x seeds).

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
    further seed is above 0, and (2) Wilcoxon's test over the test images, averaged over the seeds, has p <= 0.05. Of
    two trained rows the interval takes the larger of their own noise and that pooled over all trained rows. What varies
    in an untrained row is something else, such as its prompt's random start: there a pair has its own noise alone.
    """
    from scipy.stats import t

    seeds = sorted(set.intersection(*(set(result.seeds) for result in results))) if results else []
    if len(seeds) < 2:
        return []
    dice = {r.name: r.dice[[r.seeds.index(seed) for seed in seeds]] for r in results}  # each (seeds, images)
    trained = {r.name for r in results if r.trained}
    pooled = seed_noise([dice[name] for name in dice if name in trained]) if len(trained) > 1 else (0.0, 0)
    claims = []
    for pair in combinations(dice, 2) if pairs is None else pairs:
        better, worse = sorted(pair, key=lambda name: dice[name].mean(), reverse=True)
        by_seed = (dice[better] - dice[worse]).mean(axis=1)
        difference = float(by_seed.mean())
        noise, freedom = pooled if {better, worse} <= trained else (0.0, len(seeds) - 1)
        spread = max(float(by_seed.std(ddof=1)), 2**0.5 * noise)
        half = float(t.ppf((1 + LEVEL) / 2, freedom)) * spread * (1 + 1 / len(seeds)) ** 0.5
        p = paired_test(*(dict(enumerate(dice[name].mean(axis=0))) for name in (better, worse))).p
        if difference > half and p <= IMAGE_LEVEL:
            claims.append(Claim(group, better, worse, difference, difference - half, difference + half, p))
    return claims


def claims_csv(claims: Iterable[Claim]) -> str:
    """Claims as CSV with the columns `COLUMNS`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for claim in claims:
        numbers = [f"{value:.6f}" for value in (claim.difference, claim.low, claim.high, claim.p)]
        writer.writerow([claim.group, claim.better, claim.worse, *numbers])
    return text.getvalue()


def read_claims_csv(path: Path) -> list[Claim]:
    """What `claims_csv` wrote. Raises: UserError for a file that is missing or not whole."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [
                Claim(
                    row["group"], row["better"], row["worse"],
                    float(row["difference"]), float(row["low"]), float(row["high"]), float(row["p"]),
                )
                for row in csv.DictReader(file)
            ]  # fmt: skip
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); the study without --seeds writes it") from error


Checked = list[tuple[Claim, int, float | None]]  # claim, seed, difference in that seed (None: a run is missing)


def check_claims(claims: Iterable[Claim], results: Mapping[str, Result]) -> Checked:
    """Every claim in every seed of `results`."""
    seeds = sorted({seed for result in results.values() for seed in result.seeds})
    means = {
        (r.name, seed): float(dice.mean()) for r in results.values() for seed, dice in zip(r.seeds, r.dice, strict=True)
    }

    def difference(claim: Claim, seed: int) -> float | None:
        pair = [means.get((name, seed)) for name in (claim.better, claim.worse)]
        return None if None in pair else pair[0] - pair[1]

    return [(claim, seed, difference(claim, seed)) for claim in claims for seed in seeds]


def checked_csv(checked: Checked) -> str:
    """What `check_claims` found, as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["group", "better", "worse", "seed", "difference"])
    for claim, seed, difference in checked:
        number = "" if difference is None else f"{difference:.6f}"
        writer.writerow([claim.group, claim.better, claim.worse, seed, number])
    return text.getvalue()


def read_checked_csv(path: Path, claims: Iterable[Claim]) -> Checked | None:
    """What `checked_csv` wrote, where it is about these claims; None where it is about others, or not there."""
    if not path.is_file():
        return None
    known = {(claim.group, claim.better, claim.worse): claim for claim in claims}
    with path.open(newline="", encoding="utf-8") as file:
        rows = [((r["group"], r["better"], r["worse"]), int(r["seed"]), r["difference"]) for r in csv.DictReader(file)]
    if {key for key, _, _ in rows} != set(known):
        return None
    return [(known[key], seed, float(text) if text else None) for key, seed, text in rows]
