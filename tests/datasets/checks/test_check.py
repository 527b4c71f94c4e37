"""`check` lists every problem of a set at once."""

import numpy as np
import pytest
from PIL import Image

from datasets.checks.check import check


def kinds(report) -> list[tuple[str, str]]:
    return sorted((finding.severity, finding.kind) for finding in report.findings)


def test_a_sound_set(make_set):
    report = check(make_set({"train": 2, "test": 1}, labels=2))
    assert report.ok
    assert report.findings == []
    assert "  splits        2 train, 1 test" in report.lines()
    assert report.lines()[-1] == "0 errors, 0 warnings"


def test_all_problems_in_one_report_worst_first(make_set):
    config = make_set({"train": 9, "test": 2})
    root = config.data.root_path
    images, masks = root / "images", root / "masks"
    (images / "train0.png").unlink()
    (images / "train1.png").write_text("text")
    (masks / "train2.png").unlink()
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(masks / "train3.png")
    Image.fromarray(np.full((24, 20), 9, np.uint8)).save(masks / "train4.png")
    Image.fromarray(np.zeros((24, 20), np.uint8)).save(masks / "train5.png")
    with Image.open(images / "train6.png") as image:
        image.save(images / "test0.png", compress_level=0)  # other bytes, the same pixels
        image.save(images / "train7.png", compress_level=1)
    (images / "stray.png").write_bytes((images / "train8.png").read_bytes())
    with open(root / "data_split.csv", "a") as file:
        file.write("train8.png,test\ntrain8.png,train\ntest1.png,tset\n")
    report = check(config)
    assert not report.ok
    assert kinds(report) == [
        ("error", "duplicate content"),  # test0 and train6
        ("error", "duplicate row"),
        ("error", "mask"),
        ("error", "mask"),
        ("error", "mask not found"),
        ("error", "missing image"),
        ("error", "split"),
        ("error", "two splits"),
        ("error", "unreadable image"),
        ("warning", "duplicate content"),  # train7 and train6
        ("warning", "empty mask"),
        ("warning", "unlisted image"),
    ]
    lines = report.lines()
    severities = [line.split(":")[0] for line in lines if not line.startswith(" ")][:-2]
    assert severities == ["error"] * 9 + ["warning"] * 3
    assert lines[-1] == "9 errors, 3 warnings"
    text = "\n".join(lines)
    for named in ("train0.png", "train1.png", "train2.png", "train3.png", "train4.png", "train5.png", "stray.png"):
        assert named in text
    assert "test0.png (test) has the same pixels as train6.png (train)" in text


@pytest.mark.parametrize("split_file", [None, "a,b\n1,2\n", ""])
def test_a_set_without_its_split_file_or_columns(make_set, split_file):
    config = make_set({"train": 1})
    path = config.data.root_path / "data_split.csv"
    path.unlink() if split_file is None else path.write_text(split_file)
    report = check(config)
    assert kinds(report) == [("error", "split file")]
    assert "data_split.csv" in report.lines()[0]


def test_no_folder_of_masks_and_no_test_images(make_set):
    config = make_set({"train": 2})
    (config.data.root_path / "masks").rename(config.data.root_path / "labels")
    assert kinds(check(config)) == [("error", "mask not found")] * 2 + [("warning", "empty split")]
