"""Splits and folds: requested counts, reproducible from the seed, groups kept whole."""

import numpy as np
import pytest

from datasets.converters.plan import Case
from datasets.preparation.partition import draw_folds, draw_splits
from utils.errors import ConfigError, UserError


def no_pair():
    raise AssertionError("drawing reads nothing")


def cases(number, groups=None, split=None):
    return [Case(f"{i}", no_pair, split, f"g{i // groups}" if groups else None) for i in range(number)]


def test_a_split_has_the_counts_and_depends_on_the_seed():
    twenty, counts = cases(20), {"train": 14, "test": 6}
    drawn = draw_splits(twenty, counts, 0)
    assert list(drawn) == [case.name for case in twenty]
    assert sorted(drawn.values()) == ["test"] * 6 + ["train"] * 14
    assert drawn == draw_splits(twenty, counts, 0)
    assert drawn != draw_splits(twenty, counts, 1)
    # The same draw as ever: published numbers are of it.
    order = np.random.default_rng(0).permutation(20)
    assert {name for name, split in drawn.items() if split == "train"} == {f"{i}.png" for i in order[:14]}


def test_cases_with_a_split_keep_it():
    both = [*cases(4), Case("t", no_pair, "test"), Case("v", no_pair, "val")]
    drawn = draw_splits(both, {"train": 3, "val": 1}, 0)
    assert (drawn["t.png"], drawn["v.png"]) == ("test", "val")
    assert sorted(drawn.values()) == ["test", "train", "train", "train", "val", "val"]
    assert draw_splits(cases(2, split="val"), {}, 0) == {"0.png": "val", "1.png": "val"}


def test_counts_that_do_not_add_up():
    with pytest.raises(UserError, match=r"20 images cannot be split into 14 train \+ 7 test: .*--folds"):
        draw_splits(cases(20), {"train": 14, "test": 7}, 0)


@pytest.mark.parametrize("seed", range(10))
def test_groups_stay_whole(seed):
    drawn = draw_splits(cases(28, groups=2), {"train": 20, "test": 8}, seed)
    assert sorted(drawn.values()) == ["test"] * 8 + ["train"] * 20
    assert all(drawn[f"{i}.png"] == drawn[f"{i + 1}.png"] for i in range(0, 28, 2))


@pytest.mark.parametrize("seed", range(5))
def test_groups_that_do_not_fit_stay_whole_too(seed):
    drawn = draw_splits(cases(10, groups=2), {"train": 7, "test": 3}, seed)
    assert sorted(drawn.values()) == ["test"] * 2 + ["train"] * 8
    assert all(drawn[f"{i}.png"] == drawn[f"{i + 1}.png"] for i in range(0, 10, 2))


def test_a_group_that_leaves_no_test_images():
    with pytest.raises(UserError, match=r"too large for 4 train \+ 2 test: test is empty"):
        draw_splits(cases(6, groups=6), {"train": 4, "test": 2}, 0)


@pytest.mark.parametrize(
    ("number", "groups", "folds"), [(20, None, 5), (23, None, 4), (28, 2, 5), (9, 4, 3), (5, None, 5)]
)
def test_folds_are_even_and_whole(number, groups, folds):
    some = cases(number, groups)
    drawn = draw_folds(some, folds, 0)
    assert sorted(drawn, key=lambda name: int(name[:-4])) == [case.name for case in some]
    sizes = [list(drawn.values()).count(fold) for fold in range(folds)]
    assert min(sizes) > 0
    assert max(sizes) - min(sizes) <= (groups or 1)
    assert len({(case.group or case.stem, drawn[case.name]) for case in some}) == len({c.group or c.stem for c in some})
    assert drawn == draw_folds(some, folds, 0)
    if number == 20:
        assert drawn != draw_folds(some, folds, 1)


@pytest.mark.parametrize("folds", [-1, 0, 1, 6])
def test_invalid_numbers_of_folds(folds):
    with pytest.raises(ConfigError, match=rf"--folds {folds}: must be from 2 to 5, the number of images"):
        draw_folds(cases(5), folds, 0)
