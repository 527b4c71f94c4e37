"""Each kind of finding by itself: its severity, its kind and what it names."""

import numpy as np
import pytest
from PIL import Image

from datasets.checks.check import check


def only(report):
    """The one finding of a report, as (severity, kind, message)."""
    assert len(report.findings) == 1, report.lines()
    finding = report.findings[0]
    assert "\n" not in finding.message
    assert report.ok == (finding.severity == "warning")
    return finding.severity, finding.kind, finding.message


def grey(value: int, size: tuple[int, int] = (24, 20)) -> Image.Image:
    return Image.fromarray(np.full(size, value, np.uint8))


def spotted(value: int = 255) -> Image.Image:
    values = np.zeros((24, 20), np.uint8)
    values[3:9, 4:8] = value
    return Image.fromarray(values)


FAULTS = {
    "row": ("error", "row", "data_split.csv, row 5: no image name"),
    "split": ("error", "split", "row 5: split 'testing' of more.png"),
    "duplicate row": ("error", "duplicate row", "row 5: train0.png repeats row 2"),
    "two splits": ("error", "two splits", "row 5: train0.png is in test, and in train by row 2"),
    "missing image": ("error", "missing image", "images/train1.png"),
    "unreadable image": ("error", "unreadable image", "images/train1.png: not a readable image"),
    "mask not found": ("error", "mask not found", "train1.png: no mask"),
    "two masks": ("error", "mask not found", "train1.png: several masks"),
    "unreadable mask": ("error", "mask", "masks/train1.png: not a readable image"),
    "mask of another size": (
        "error",
        "mask",
        "masks/train1.png: mask of 5 x 4 pixels, but image train1.png is 20 x 24",
    ),
    "mask values": ("error", "mask", "masks/train1.png: the mask holds values 3; label_list allows 0, 1"),
    "leak": ("error", "duplicate content", "test0.png (test) has the same pixels as train1.png (train)"),
    "twin": ("warning", "duplicate content", "train1.png (train) has the same pixels as train0.png (train)"),
    "empty mask": ("warning", "empty mask", "masks/train1.png: no pixel of L1"),
    "mostly foreground": ("warning", "mostly foreground", "masks/train1.png: 100% is foreground"),
    "group": ("error", "group in two", "row 5: group p is in test, and in train by row 2"),
    "fold": ("error", "fold", "data.fold_num = 1, but there is no column fold"),
    "bad fold": ("error", "fold", "row 5: fold 'x' of more.png is no whole number"),
    "fold column": ("warning", "fold", "column split differs from fold 0"),
    "leftover": ("warning", "unlisted image", "images/sub/more.png: not in the split file"),
    "no field of view": ("error", "field of view", "train1.png: no field-of-view file"),
    "empty field of view": ("error", "field of view", "fov/train1.png: no pixel is inside"),
    "outside field of view": (
        "warning",
        "outside field of view",
        "train1.png: 16.7% of the foreground is outside",
    ),
    "empty split": ("warning", "empty split", "no image of split 'test'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_is_one_finding(make_set, fault):
    config = make_set({"train": 2} if fault == "empty split" else {"train": 2, "test": 1})
    root = config.data.root_path
    image, mask = root / "images/train1.png", root / "masks/train1.png"
    row = {"row": ",train", "split": "more.png,testing", "duplicate row": "train0.png,train"}
    row["two splits"] = "train0.png,test"
    if fault in row:
        with open(root / "data_split.csv", "a") as file:
            file.write(row[fault] + "\n")
    if fault == "split":
        grey(9).save(root / "images/more.png")
        spotted().save(root / "masks/more.png")
    elif "field of view" in fault:
        (root / "fov").mkdir()
        for name in ("train0", "train1", "test0"):
            grey(255).save(root / f"fov/{name}.png")
        if fault == "no field of view":
            (root / "fov/train1.png").unlink()
        elif fault == "empty field of view":
            grey(0).save(root / "fov/train1.png")
        else:
            inside = np.full((24, 20), 255, np.uint8)
            inside[3] = 0
            spotted().save(mask)
            Image.fromarray(inside).save(root / "fov/train1.png")
    elif fault == "missing image":
        image.unlink()
    elif fault == "unreadable image":
        image.write_text("text")
    elif fault == "mask not found":
        mask.unlink()
    elif fault == "two masks":
        grey(255).save(root / "masks/train1_mask.gif")
    elif fault == "unreadable mask":
        mask.write_bytes(mask.read_bytes()[:60])
    elif fault == "mask of another size":
        grey(255, (4, 5)).save(mask)
    elif fault in ("mask values", "empty mask", "mostly foreground"):
        grey({"mask values": 3, "empty mask": 0, "mostly foreground": 255}[fault]).save(mask)
    elif fault in ("group", "bad fold", "fold column"):
        spotted().save(root / "images/more.png")
        spotted().save(root / "masks/more.png")
        last = {"group": "more.png,test,p,", "bad fold": "more.png,test,,x", "fold column": "more.png,train,,0"}
        text = "imgs,split,group,fold\ntrain0.png,train,p\ntrain1.png,train\ntest0.png,test\n"
        (root / "data_split.csv").write_text(text + last[fault] + "\n")
    elif fault == "fold":
        config.data.fold_num = 1
    elif fault in ("leak", "twin"):
        with Image.open(image) as same:
            same.save(root / "images" / ("test0.png" if fault == "leak" else "train0.png"), compress_level=0)
    elif fault == "leftover":
        (root / "images/sub").mkdir()
        grey(9).save(root / "images/sub/more.png")
        (root / "images/notes.txt").write_text("no image")
    severity, kind, message = only(check(config))
    assert (severity, kind) == FAULTS[fault][:2]
    assert FAULTS[fault][2] in message


def test_a_sixteen_bit_image_beyond_an_eight_bit_window(make_set):
    config = make_set({"train": 2, "test": 1}, a_min=0.0, a_max=255.0)
    Image.fromarray(np.full((24, 20), 9000, np.uint16)).save(config.data.root_path / "images/train1.png")
    severity, kind, message = only(check(config))
    assert (severity, kind) == ("error", "intensity window")
    assert "images/train1.png: data_transforms: a_max (255) would turn 100% of this 16-bit image white" in message


def test_counts_are_of_masks_with_the_label(make_set):
    config = make_set({"train": 2, "val": 1, "test": 1}, labels=2)
    spotted(2).save(config.data.root_path / "masks/val0.png")
    report = check(config)
    assert report.ok
    assert [" ".join(line.split()[:4]) for line in report.card[-2:]] == ["L1 in 3 masks,", "L2 in 4 masks,"]
    assert report.lines()[-1] == "0 errors, 0 warnings"


def test_a_group_in_two_folds_leaks(make_set):
    config = make_set({"train": 3, "test": 1})
    text = (
        "imgs,split,fold,group\ntrain0.png,train,1,p\ntrain1.png,train,2,p\ntrain2.png,train,1,q\ntest0.png,test,0,r\n"
    )
    (config.data.root_path / "data_split.csv").write_text(text)
    severity, kind, message = only(check(config))
    assert (severity, kind) == ("error", "group in two")
    assert "row 3: group p is in train, fold 2, and in train, fold 1 by row 2" in message


def test_counts_and_leaks_are_those_of_the_fold_that_is_tested(make_set):
    config = make_set({"train": 3, "test": 1})
    root = config.data.root_path
    with Image.open(root / "images/train1.png") as same:
        same.save(root / "images/train0.png")
    text = "imgs,split,fold\ntrain0.png,train,1\ntrain1.png,train,2\ntrain2.png,train,1\ntest0.png,test,0\n"
    (root / "data_split.csv").write_text(text)
    assert only(check(config))[:2] == ("warning", "duplicate content")  # both train while fold 0 is tested
    config.data.fold_num = 1
    report = check(config)
    assert only(report)[:2] == ("error", "duplicate content")
    assert "  splits        2 train, 2 test" in report.lines()


def test_of_many_findings_of_a_kind_the_first_are_shown_and_the_rest_counted(make_set):
    config = make_set({"train": 25, "test": 1})
    for path in (config.data.root_path / "masks").glob("train*"):
        path.unlink()
    report = check(config)
    assert len(report.findings) == 25
    lines = [line for line in report.lines() if line.startswith("error: mask not found")]
    assert len(lines) == 21
    assert lines[-1] == "error: mask not found: ... and 5 more"
    assert report.lines()[-1] == "25 errors, 0 warnings"
