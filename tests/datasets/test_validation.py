"""Validation images drawn from the training images: how many, which, whole groups, and the file that records them."""

from types import SimpleNamespace

import pytest

from datasets.split import Row, read_rows
from datasets.validation import draw_validation, run_rows, run_split, split_text


def rows_of(train, test=2, size=1):
    """`train` groups of `size` images each (images without a group for size 1), and test images."""
    images = [(f"{g}_{i}.png", f"g{g}" if size > 1 else "") for g in range(train) for i in range(size)]
    rows = [Row(line, image, "train", "", group) for line, (image, group) in enumerate(images, 2)]
    return [*rows, *(Row(0, f"t{i}.png", "test", "", "") for i in range(test))]


def drawn(rows, fraction=0.15, seed=0):
    return {row.image for row in draw_validation(rows, fraction, seed) if row.split == "val"}


@pytest.mark.parametrize(
    ("train", "fraction", "count"), [(20, 0.15, 3), (14, 0.15, 2), (3, 0.15, 1), (2, 0.99, 1), (93, 0.15, 14)]
)
def test_about_the_fraction_and_at_least_one(train, fraction, count):
    rows = rows_of(train)
    assert len(drawn(rows, fraction)) == count
    assert [row.image for row in draw_validation(rows, fraction, 0)] == [row.image for row in rows]
    assert sum(row.split == "test" for row in draw_validation(rows, fraction, 0)) == 2


def test_the_draw_depends_on_seed_and_names_alone():
    rows = rows_of(20)
    assert drawn(rows) == drawn(rows[::-1])
    assert len({frozenset(drawn(rows, seed=seed)) for seed in range(5)}) > 1


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("groups", "size", "count"), [(10, 2, 2), (5, 4, 4), (3, 10, 10)])
def test_groups_stay_whole(groups, size, count, seed):
    rows = rows_of(groups, size=size)
    images = drawn(rows, seed=seed)
    assert len(images) == count
    groups = {row.group for row in rows if row.image in images}
    assert images == {row.image for row in rows if row.group in groups}


def test_one_group_alone_is_not_divided():
    assert drawn(rows_of(1)) == drawn(rows_of(1, size=4)) == set()


def test_what_a_run_uses(tmp_path):
    path = tmp_path / "data_split.csv"
    names = "".join(f"{i}.png,train,{i % 2},p{i // 2}\n" for i in range(8))
    path.write_text("imgs,split,fold,group\n" + names)
    data = SimpleNamespace(root_path=tmp_path, data_split_csv=path, fold_num=1, val="val", val_fraction=0.5)
    split = run_split(data, 0)
    assert split["test"] == ["1.png", "3.png", "5.png", "7.png"]
    assert len(split["val"]) == len(split["train"]) == 2
    recorded = tmp_path / "recorded.csv"
    recorded.write_text(split_text(run_rows(data, 0)))
    again = SimpleNamespace(**{**vars(data), "data_split_csv": recorded, "fold_num": 0})
    assert run_split(again, 99) == split  # nothing is drawn again
    assert [row.group for row in read_rows(recorded)] == [f"p{i // 2}" for i in range(8)]
    data.val = "test"
    assert run_split(data, 0)["val"] == []


def test_validation_images_of_the_file_are_used(tmp_path):
    (tmp_path / "data_split.csv").write_text("imgs,split\na.png,train\nb.png,train\nc.png,val\n")
    data = SimpleNamespace(root_path=tmp_path, data_split_csv=None, val="val", val_fraction=0.5)
    assert run_split(data, 0) == {"train": ["a.png", "b.png"], "val": ["c.png"], "test": []}
