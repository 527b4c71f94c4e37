"""The dataset card: sizes, depths, values and shares as they are, and a contact sheet that shows them."""

import numpy as np
import pytest
from PIL import Image

from datasets.checks.check import check
from datasets.checks.contact_sheet import TILES, save_contact_sheet
from utils.drawing import label_colour


def test_the_card_describes_the_files(make_set):
    config = make_set({"train": 3, "val": 1, "test": 1})
    root = config.data.root_path
    for path in (root / "masks").iterdir():
        mask = np.zeros((24, 20), np.uint8)
        mask[:3] = 255  # an eighth
        Image.fromarray(mask).save(path)
    ones = np.zeros((40, 30), np.uint8)
    ones[:20] = 1  # a half
    Image.fromarray(ones).save(root / "masks" / "train1.png")
    Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(40, 30)).save(root / "images" / "train1.png")
    Image.fromarray(np.arange(480, dtype=np.uint8).reshape(24, 20)).save(root / "images" / "test0.png")
    report = check(config)
    assert report.findings == []
    assert report.card == [
        f"{root}: 5 images",
        "  splits        3 train, 1 val, 1 test",
        "  sizes         4 of 20 x 24, 1 of 30 x 40 (width x height)",
        "  bit depths    3 8-bit colour, 1 16-bit grey, 1 8-bit grey",
        "  mask values   0, 1 (in 1 of 5), 255 (in 4 of 5)",
        "  L1            in 5 masks, 20.0% of the pixels; 12.5% (test0.png) to 50.0% (train1.png)",
    ]
    assert report.lines() == [*report.card, "0 errors, 0 warnings"]


def test_a_long_label_keeps_a_space_before_its_facts(make_set):
    config = make_set({"train": 2, "test": 1})
    config.data.label_names = ["Background", "retinal vessels"]
    assert any(line.startswith("  retinal vessels in 3 masks, ") for line in check(config).card)


def test_the_card_names_folds_and_a_label_in_no_mask(make_set):
    config = make_set({"train": 2, "test": 1}, labels=2)
    root = config.data.root_path
    for path in (root / "masks").iterdir():
        Image.fromarray(np.eye(24, 20, dtype=np.uint8)).save(path)
    text = "imgs,split,fold,group\ntrain0.png,train,1,p\ntrain1.png,train,1,p\ntest0.png,test,0,q\n"
    (root / "data_split.csv").write_text(text)
    card = check(config).card
    assert "  folds         2 of 1, 2 images, 2 groups; fold 0 is tested" in card
    assert "  L2            in no mask" in card


def test_the_card_of_unreadable_files(make_set):
    config = make_set({"train": 1, "test": 1})
    for path in (config.data.root_path / "images").iterdir():
        path.write_text("text")
    report = check(config)
    assert "  sizes         none (width x height)" in report.card
    assert save_contact_sheet(config.data.root_path / "s.png", config.data, report.files, report.splits) == 0
    assert not (config.data.root_path / "s.png").exists()


@pytest.mark.parametrize(
    ("counts", "shown"), [({"train": 2, "test": 1}, 3), ({"train": 40, "val": 1, "test": 3}, TILES)]
)
def test_the_sheet_shows_some_of_every_split(make_set, counts, shown):
    config = make_set(counts)
    report = check(config)
    path = config.data.root_path / "sheet" / "s.png"
    assert save_contact_sheet(path, config.data, report.files, report.splits) == shown
    with Image.open(path) as sheet:
        assert sheet.format == "PNG"


def test_the_outline_lies_around_the_label_and_not_on_it(make_set):
    """A square in the middle of one grey image: its colour stays, a ring of the label's colour surrounds it."""
    config = make_set({"train": 1}, labels=2)
    root = config.data.root_path
    mask = np.zeros((36, 36), np.uint8)
    mask[12:24, 12:24] = 2
    Image.fromarray(mask).save(root / "masks" / "train0.png")
    image = np.full((36, 36, 3), 90, np.uint8)
    image[0], image[1] = 0, 255
    Image.fromarray(image).save(root / "images" / "train0.png")
    report = check(config)
    save_contact_sheet(root / "s.png", config.data, report.files, report.splits)
    with Image.open(root / "s.png") as sheet:
        pixels = np.asarray(sheet).astype(int)
    coloured = np.abs(pixels - label_colour(1)).sum(-1) < 30
    rows, columns = np.nonzero(coloured[60:])  # below the header, whose text has the colour too
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert 120 <= height <= 126  # a third of a tile of 360, and a line on each side
    assert 120 <= width <= 126
    middle = pixels[60 + rows.min() + height // 2, columns.min() + width // 2]
    np.testing.assert_array_equal(middle, [90, 90, 90])
    assert not (np.abs(pixels[60:] - label_colour(0)).sum(-1) < 30).any()  # label 1 is nowhere
