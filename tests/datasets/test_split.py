"""data_split.csv: what is read, and what is refused with file and row."""

from types import SimpleNamespace

import pytest

from datasets.split import read_split
from utils.errors import UserError


def write(tmp_path, text: str, encoding: str = "utf-8") -> SimpleNamespace:
    (tmp_path / "data_split.csv").write_text(text, encoding=encoding)
    return SimpleNamespace(root_path=tmp_path, data_split_csv=None)


def test_the_file_s_order_and_every_split(tmp_path):
    data = write(tmp_path, "fold,split,imgs\n1,test,c.png\n1,train, b.png \n2,Train,a.png\n")
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
        ("imgs,split\na.png,train\nb.png,tests\n", r"row 3: split 'tests' of b\.png is none of train, val, test"),
        ("imgs,split\na.png\n", r"row 2: split '' of a\.png"),
        ("imgs,split\n,train\n", r"row 2: no image name"),
        ("imgs,split\na.png,train\nb.png,train\na.png,test\n", r"row 4: a\.png is in test, and in train by row 2"),
        ("imgs,split\na.png,train\na.png,train\n", r"row 3: a\.png repeats row 2"),
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
