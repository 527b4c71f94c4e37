"""Drawing splits and folds, reproducibly from a seed, without dividing a group."""

from collections.abc import Mapping, Sequence

import numpy as np

from datasets.converters.plan import Case
from datasets.split import SPLITS
from utils.errors import ConfigError, UserError


def draw_splits(cases: Sequence[Case], counts: Mapping[str, int], seed: int) -> dict[str, str]:
    """Return {image name: split}. Cases keep the split they have; the others are drawn, `counts` images for each split.

    Groups are taken in a random order. Each goes to the first of train, val, test that has room for all of it, or else
    to the one with the most room, which then exceeds its count.

    Raises: UserError if the counts do not add up to the cases, or groups are so large that a split is empty.
    """
    undecided = [case for case in cases if case.split is None]
    wanted = " + ".join(f"{count} {split}" for split, count in counts.items())
    if sum(counts.values()) != len(undecided):
        raise UserError(
            f"{len(undecided)} images cannot be split into {wanted}: the set is incomplete, or another edition; "
            "--folds splits any number"
        )
    drawn: dict[str, str] = {}
    room = {split: counts.get(split, 0) for split in SPLITS}
    for group in _shuffled_groups(undecided, seed):
        fitting = next((split for split in SPLITS if room[split] >= len(group)), None)
        split = fitting or max(SPLITS, key=lambda split: room[split])
        room[split] -= len(group)
        drawn |= {case.name: split for case in group}
    splits = {case.name: case.split or drawn[case.name] for case in cases}
    if empty := [split for split, count in counts.items() if count and split not in splits.values()]:
        raise UserError(f"groups of images are too large for {wanted}: {empty[0]} is empty; choose other sizes")
    return splits


def draw_folds(cases: Sequence[Case], number: int, seed: int) -> dict[str, int]:
    """Return {image name: fold}, 0..number-1, of sizes as equal as the groups allow, drawn from `seed`.

    Raises: ConfigError for fewer than 2 folds, or more than there are groups.
    """
    groups = _shuffled_groups(cases, seed)
    if not 2 <= number <= len(groups):
        kind = "images" if len(groups) == len(cases) else "groups of images"
        raise ConfigError(f"--folds {number}: must be from 2 to {len(groups)}, the number of {kind}")
    sizes = [0] * number
    folds: dict[str, int] = {}
    # The largest groups first, each to the smallest fold. The sort is stable: equal groups keep their random order.
    for group in sorted(groups, key=len, reverse=True):
        fold = sizes.index(min(sizes))
        sizes[fold] += len(group)
        folds |= {case.name: fold for case in group}
    return folds


def group_of(case: Case) -> str:
    """Return the case's group, or its stem if it has none."""
    return case.group if case.group is not None else case.stem


def _shuffled_groups(cases: Sequence[Case], seed: int) -> list[list[Case]]:
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(group_of(case), []).append(case)
    ordered = list(groups.values())
    return [ordered[i] for i in np.random.default_rng(seed).permutation(len(ordered))]
