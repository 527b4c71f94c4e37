"""Proposing which masks belong to which images, in folders as users have them."""

from pathlib import Path

import pytest

from datasets.converters.pattern import pair_by
from datasets.converters.proposal import propose
from datasets.converters.search import images_below
from utils.errors import UserError


def files(folder, *stems):
    return {stem: Path(folder) / f"{stem}.png" for stem in stems}


def stems(pairing):
    return [(image.stem, mask.stem) for image, mask in pairing.pairs]


def tree(folder, *names):
    """An empty file of each name below the folder, and what `images_below` finds."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return images_below(folder)


@pytest.mark.parametrize(
    ("images", "masks", "pattern"),
    [
        (["a", "b"], ["a", "b"], "{id}={id}"),
        (["a", "b"], ["a_mask", "b_mask"], "{id}={id}_mask"),
        (["21_training", "22_training"], ["21_manual1", "22_manual1"], "{id}_training={id}_manual1"),
        (["img_01", "img_02"], ["seg_01", "seg_02"], "img_{id}=seg_{id}"),
        (["01L", "01R", "02L"], ["01L_1stHO", "01R_1stHO", "02L_1stHO"], "{id}={id}_1stHO"),
        (["s1_10", "s1_11"], ["m10", "m11"], "s1_{id}=m{id}"),
        (["x{1}_a", "x{1}_b"], ["a", "b"], "x*1*_{id}={id}"),
        (["1", "2", "11"], ["m_1", "m_2", "m_11"], "{id}=m_{id}"),
    ],
)
def test_a_pattern_is_proposed(images, masks, pattern):
    pairing = propose(files("i", *images), files("m", *masks))
    assert pairing.pattern == pattern
    assert stems(pairing) == list(zip(images, masks, strict=True))
    assert pairing.others == []


def test_the_proposal_pairs_the_most():
    pairing = propose(files("i", "1", "2", "3"), files("m", "1_mask", "2_mask", "3"))
    assert pairing.pattern == "{id}={id}_mask"
    assert [path.stem for path in pairing.unpaired_masks] == ["3"]
    assert propose(files("i", "cat"), files("m", "dog")).pairs == []
    assert propose({}, {}).pairs == []


CHASE = [f"Image_{i:02d}{eye}" for i in range(1, 15) for eye in "LR"]
OBSERVERS = ["1stHO", "2ndHO"]


@pytest.mark.parametrize(
    ("names", "same_folder"),
    [
        ([f"{n}{e}" for n in CHASE for e in (".jpg", "_1stHO.png", "_2ndHO.png")], True),
        ([f"child_{n[6:8]}/{n}{e}" for n in CHASE for e in (".jpg", "_1stHO.png", "_2ndHO.png")], True),
        (
            [
                f"{f}/{n[6:8]}/{n}{e}"
                for n in CHASE
                for f, e in (("i", ".jpg"), ("m", "_1stHO.png"), ("m", "_2ndHO.png"))
            ],
            False,
        ),
    ],
    ids=["one folder", "a folder for each child", "two trees"],
)
def test_the_masks_of_two_observers(tmp_path, names, same_folder):
    """Each case has two masks: the first observer's are taken and the second's offered, in whatever folders."""
    found = tree(tmp_path, *names)
    images, masks = (found, found) if same_folder else (images_below(tmp_path / "i"), images_below(tmp_path / "m"))
    pairing = propose(images, masks)
    assert pairing.pattern == "{id}={id}_1stHO"
    assert stems(pairing) == [(name, f"{name}_1stHO") for name in CHASE]
    assert (pairing.unpaired_images, pairing.unpaired_masks) == ([], [])
    (other,) = pairing.others
    assert other.pattern == "{id}={id}_2ndHO"
    assert stems(pair_by(other.pattern, images, masks)) == [(name, f"{name}_2ndHO") for name in CHASE]


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        (["images/01.png", "images/02.png", "masks/01.png", "masks/02.png"], "images/{id}=masks/{id}"),
        (["anna/image.png", "anna/mask.png", "ben/image.png", "ben/mask.png"], "{id}/image={id}/mask"),
        (["p1/image.png", "p1/mask.png", "p2/image.png", "p2/mask.png"], "{id}/image={id}/mask"),
        (["21_training.tif", "22_training.tif", "21_manual1.gif", "22_manual1.gif"], "{id}_training={id}_manual1"),
        (["a.jpg", "a.png", "b.jpg", "b.png"], "{id}.jpg={id}.png"),
        (["a/1.png", "a/1_gt.png", "b/1.png", "b/1_gt.png"], "{id}={id}_gt"),
    ],
)
def test_one_folder_of_images_and_masks(tmp_path, names, pattern):
    found = tree(tmp_path, *names)
    pairing = propose(found, found)
    assert pairing.pattern == pattern
    assert len(pairing.pairs) == 2
    assert {path for pair in pairing.pairs for path in pair} == set(found.values())
    assert pair_by(pattern, found, found).pairs == pairing.pairs


def test_a_field_of_view_is_not_taken_for_the_masks(tmp_path):
    """DRIVE's own tree: images, vessels and fields of view."""
    parts = (("images", "training.tif"), ("1st_manual", "manual1.gif"), ("mask", "training_mask.gif"))
    found = tree(tmp_path, *(f"{folder}/{i}_{ending}" for i in range(21, 41) for folder, ending in parts))
    pairing = propose(found, found)
    assert pairing.pattern == "{id}_training={id}_manual1"
    assert [len(other.pairs) for other in pairing.others] == [20]
    assert all(mask.parent.name == "mask" for _, mask in pairing.others[0].pairs)


def test_names_that_repeat_in_folders_are_paths():
    images = {"a/1": Path("i/a/1.png"), "b/1": Path("i/b/1.png")}
    masks = {"a/1_m": Path("m/a/1_m.png"), "b/1_m": Path("m/b/1_m.png")}
    pairing = pair_by("{group}/{id}={group}/{id}_m", images, masks)
    assert pairing.pairs == [(images["a/1"], masks["a/1_m"]), (images["b/1"], masks["b/1_m"])]
    assert list(pairing.groups.values()) == ["a", "b"]
    assert pair_by("{id}={id}_m", images, masks).pairs == pairing.pairs


def test_what_a_folder_without_images_holds(tmp_path):
    with pytest.raises(UserError, match="it is empty"):
        images_below(tmp_path)
    (tmp_path / "deep").mkdir()
    for name in ("a.dcm", "b.dcm", "deep/notes.txt", ".hidden.png"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"holds no image \(.*\.png.*\); it holds 2 \.dcm, 1 \.txt"):
        images_below(tmp_path)
