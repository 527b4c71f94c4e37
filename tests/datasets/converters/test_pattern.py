"""Pairing images with masks by the patterns of their names."""

from pathlib import Path

import pytest

from datasets.converters.pattern import pair_by
from utils.errors import ConfigError, UserError


def files(folder, *stems):
    return {stem: Path(folder) / f"{stem}.png" for stem in stems}


def stems(pairing):
    return [(image.stem, mask.stem) for image, mask in pairing.pairs]


@pytest.mark.parametrize(
    ("pattern", "images", "masks"),
    [
        ("{id}_training={id}_manual1", ["21_training", "22_training"], ["21_manual1", "22_manual1"]),
        ("{id}_manual1", ["21", "22"], ["21_manual1", "22_manual1"]),
        ("{id}={id}", ["a", "b"], ["a", "b"]),
        ("case_{id}_*={id}_gt", ["case_1_xx", "case_2_"], ["1_gt", "2_gt"]),
        ("*-{id}=m{id}*", ["x-1", "y-2"], ["m1", "m2zz"]),
        ("{group}_{id}={group}_{id}_m", ["p1_L", "p1_R", "p2_L"], ["p1_L_m", "p1_R_m", "p2_L_m"]),
        ("p{group}_{id}={id}", ["p1_a", "p1_b", "p2_c"], ["a", "b", "c"]),
        ("a.b({id})=[{id}]", ["a.b(1)"], ["[1]"]),
    ],
)
def test_patterns(pattern, images, masks):
    pairing = pair_by(pattern, files("i", *images), files("m", *masks))
    assert stems(pairing) == list(zip(images, masks, strict=True))
    assert (pairing.unpaired_images, pairing.unpaired_masks) == ([], [])
    if "{group}" in pattern:
        assert [pairing.groups[image].removeprefix("p") for image, _ in pairing.pairs] == ["1", "1", "2"]
    else:
        assert pairing.groups == {}


def test_unpaired_files_are_listed():
    pairing = pair_by("{id}_gt", files("i", "1", "2", "3", "x"), files("m", "1_gt", "4_gt", "3_gt", "notes"))
    assert stems(pairing) == [("1", "1_gt"), ("3", "3_gt")]
    assert [path.stem for path in pairing.unpaired_images] == ["2", "x"]
    assert [path.stem for path in pairing.unpaired_masks] == ["4_gt", "notes"]


def test_images_and_masks_in_one_folder():
    both = files("f", "1", "1_gt", "2", "2_gt", "3", "4_gt")
    for pairing in (pair_by("{id}_gt", both, both), pair_by("{id}={id}_gt", both, both)):
        assert stems(pairing) == [("1", "1_gt"), ("2", "2_gt")]
        assert [path.stem for path in pairing.unpaired_images] == ["3"]
        assert [path.stem for path in pairing.unpaired_masks] == ["4_gt"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{id}=mask", r"needs \{id\} on each side"),
        ("image={id}", r"needs \{id\} on each side"),
        ("{id}_{id}={id}", r"\{id\} is unknown or used twice"),
        ("{group}{id}={group}{id}_m", "put text between the placeholders; nothing says where the first ends"),
        ("{group}*_{id}={group}*_{id}_m", "put text between the placeholders"),
        ("{nr}_{id}={id}", r"\{nr\} is unknown"),
        ("{id}={id}_{group}", r"\{group\} is missing on the image's side"),
    ],
)
def test_invalid_patterns(pattern, message):
    with pytest.raises(ConfigError, match=message):
        pair_by(pattern, files("i", "1"), files("m", "1"))


def test_files_that_a_pattern_does_not_distinguish():
    with pytest.raises(UserError, match=r"1_b\.png: the pattern .* does not tell it from 1_a\.png"):
        pair_by("{id}_*={id}", files("i", "1_a", "1_b"), files("m", "1"))
    with pytest.raises(UserError, match=r"1_y\.png: the pattern .* does not tell it from 1_x\.png"):
        pair_by("{id}={id}_*", files("i", "1"), files("m", "1_x", "1_y"))
