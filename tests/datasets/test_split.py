"""data_split.csv: what is read, and what is refused with file and row."""

from types import SimpleNamespace

import pytest

from datasets.split import read_split
from utils.errors import ConfigError, UserError


def write(tmp_path, text: str, encoding: str = "utf-8", fold_num: int = 0) -> SimpleNamespace:
    (tmp_path / "data_split.csv").write_text(text, encoding=encoding)
    return SimpleNamespace(root_path=tmp_path, data_split_csv=None, fold_num=fold_num)


def test_the_file_s_order_and_every_split(tmp_path):
    data = write(tmp_path, "centre,split,imgs\n1,test,c.png\n1,train, b.png \n2,Train,a.png\n")
    assert read_split(data) == {"train": ["b.png", "a.png"], "val": [], "test": ["c.png"]}


def test_a_byte_order_mark_and_another_path(tmp_path):
    write(tmp_path, "imgs,split\r\na.png,val\r\n", "utf-8-sig")
    data = SimpleNamespace(root_path=tmp_path / "elsewhere", data_split_csv=tmp_path / "data_split.csv")
    assert read_split(data)["val"] == ["a.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"no column imgs, split"),
        ("imgs,split\n", r"no rows"),
        ("imgs,fold\na.png,1\n", r"no column split"),
        ("imgs,split\na.png,train\nb.png,tests\n", r"row 3: split 'tests' of b\.png is not one of train, val, test"),
        ("imgs,split\na.png\n", r"row 2: split '' of a\.png"),
        ("imgs,split\n,train\n", r"row 2: no image name"),
        ("imgs,split\na.png,train\nb.png,train\na.png,test\n", r"row 4: a\.png is in test, and in train by row 2"),
        ("imgs,split\na.png,train\na.png,train\n", r"row 3: a\.png repeats row 2"),
        ("imgs,split,fold\na.png,train,one\n", r"row 2: fold 'one' of a\.png is no whole number"),
        ("imgs,split,fold\na.png,train,-1\n", r"row 2: fold '-1' of a\.png is no whole number"),
        ("imgs,split,fold\na.png,train,1\na.png,train,2\n", r"row 3: a\.png is in fold 2, and in fold 1 by row 2"),
    ],
)
def test_bad_files(tmp_path, text, message):
    with pytest.raises(UserError, match=rf"data_split\.csv.*{message}") as caught:
        read_split(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_missing_and_binary_files(tmp_path):
    data = SimpleNamespace(root_path=tmp_path, data_split_csv=None)
    with pytest.raises(UserError, match=r"data_split\.csv: no such file"):
        read_split(data)
    (tmp_path / "data_split.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UserError, match=r"data_split\.csv: not a readable CSV"):
        read_split(data)


FOLDS = "imgs,split,fold,group\na.png,test,0,p\nb.png,train,1,q\nc.png,train,2,r\nd.png,train,1,q\n"


@pytest.mark.parametrize(
    ("fold", "test", "train"),
    [
        (0, ["a.png"], ["b.png", "c.png", "d.png"]),
        (1, ["b.png", "d.png"], ["a.png", "c.png"]),
        (2, ["c.png"], ["a.png", "b.png", "d.png"]),
    ],
)
def test_a_fold_is_tested_and_all_others_train(tmp_path, fold, test, train):
    assert read_split(write(tmp_path, FOLDS, fold_num=fold)) == {"train": train, "val": [], "test": test}


def test_the_fold_overrides_the_split_column(tmp_path):
    data = write(tmp_path, FOLDS.replace("test", "train"))
    assert read_split(data)["test"] == ["a.png"]


def test_an_image_without_a_fold_keeps_its_split(tmp_path):
    text = FOLDS + "v.png,val,,\nt.png,train\n"
    for fold in range(3):
        split = read_split(write(tmp_path, text, fold_num=fold))
        assert split["val"] == ["v.png"]
        assert "t.png" in split["train"]


def test_a_fold_that_is_not_in_the_file(tmp_path):
    with pytest.raises(ConfigError, match=r"data_split\.csv: data\.fold_num = 3, but the folds are 0, 1, 2"):
        read_split(write(tmp_path, FOLDS, fold_num=3))
    with pytest.raises(ConfigError, match=r"data\.fold_num = 1, but there is no column fold; .*--folds"):
        read_split(write(tmp_path, "imgs,split\na.png,train\n", fold_num=1))
    with pytest.raises(ConfigError, match=r"data\.fold_num = 0, but the folds are 1, 2"):  # numbered from 1
        read_split(write(tmp_path, "imgs,split,fold\na.png,train,1\nb.png,test,2\n"))


def test_a_config_without_fold_num_means_fold_0(tmp_path):
    data = write(tmp_path, FOLDS)
    del data.fold_num
    assert read_split(data)["test"] == ["a.png"]
