"""Labels by colour or by value, named on the command line."""

import numpy as np
import pytest
from PIL import Image

from datasets.converters.classes import check_without_classes, parse_classes
from datasets.io import read_mask
from datasets.preparation.prepare import prepare
from utils.errors import ConfigError, UserError

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def painted(path, *colours, ground=(0, 0, 0)):
    """An image with a square of each colour, and where the squares are: 0, 1, ..."""
    image = np.full((8, 9, 3), ground, np.uint8)
    labels = np.zeros((8, 9), np.uint8)
    for i, colour in enumerate(colours):
        image[2 * i : 2 * i + 2, :3] = colour
        labels[2 * i : 2 * i + 2, :3] = i + 1
    Image.fromarray(image).save(path)
    return labels


def test_colours_become_labels_in_the_order_given(tmp_path):
    labels = painted(tmp_path / "m.png", RED, BLUE)
    classes = parse_classes(["artery=#ff0000", "vein=#0000FF"])
    assert classes.labels == {1: "artery", 2: "vein"}
    np.testing.assert_array_equal(classes.read(tmp_path / "m.png"), labels)
    other = parse_classes(["vein=#0000ff", "artery=#ff0000"]).read(tmp_path / "m.png")
    np.testing.assert_array_equal(other, np.array([0, 2, 1])[labels])


def test_a_single_class_is_foreground_and_background_may_have_a_colour(tmp_path):
    labels = painted(tmp_path / "m.png", RED, ground=WHITE)
    found = parse_classes(["vessel=#ff0000", "Background=#ffffff"]).read(tmp_path / "m.png")
    assert found.dtype == bool
    np.testing.assert_array_equal(found, labels > 0)


def test_palette_files_are_read_as_the_colours_they_show(tmp_path):
    labels = painted(tmp_path / "m.png", RED, BLUE)
    Image.open(tmp_path / "m.png").convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "p.png")
    np.testing.assert_array_equal(parse_classes(["a=#ff0000", "v=#0000ff"]).read(tmp_path / "p.png"), labels)


def test_stored_values_get_names(tmp_path):
    Image.fromarray(np.array([[0, 7, 9]], np.uint8)).save(tmp_path / "m.png")
    classes = parse_classes(["vein=9", "artery=7"])
    assert classes.labels == {1: "vein", 2: "artery"}
    assert classes.read(tmp_path / "m.png").tolist() == [[0, 2, 1]]


def test_what_has_no_name_is_listed(tmp_path):
    painted(tmp_path / "m.png", RED, BLUE)
    with pytest.raises(UserError, match=r"m\.png: holds #0000ff in 6 pixels, which --classes does not name"):
        parse_classes(["artery=#ff0000"]).read(tmp_path / "m.png")
    painted(tmp_path / "m.jpg", RED)
    with pytest.raises(UserError, match=r"m\.jpg: holds #.* JPEG blurs colours"):
        parse_classes(["artery=#ff0000"]).read(tmp_path / "m.jpg")
    with pytest.raises(
        UserError, match=r"m\.png: a mask in colour; name its colours: --classes NAME1=#0000ff NAME2=#ff0000"
    ):
        check_without_classes(tmp_path / "m.png")


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["vessel"], "--classes vessel: write --classes as name=#ff0000"),
        (["vessel=red"], "--classes vessel=red: write"),
        (["=#ff0000"], "write --classes"),
        (["a=#ff0000", "b=#FF0000"], "#FF0000 is given twice"),
        (["a=#ff0000", "a=#00ff00"], "a is given twice"),
        (["a=#ff0000", "b=2"], "mixes colours and values"),
        (["background=#ff0000"], "names no class besides background"),
        (["a=0"], "takes 0, background's value"),
    ],
)
def test_bad_classes(texts, message):
    with pytest.raises(ConfigError, match=message):
        parse_classes(texts)


def test_a_set_with_colour_masks(tmp_path):
    """The same image folder with and without --classes; data.yaml gets the names."""
    (tmp_path / "mine").mkdir()
    for i in range(4):
        Image.fromarray(np.full((8, 9), i, np.uint8)).save(tmp_path / "mine" / f"{i}.png")
        labels = painted(tmp_path / "mine" / f"{i}_mask.png", RED, BLUE)
    with pytest.raises(UserError, match=r"0_mask\.png: a mask in colour; name its colours: --classes"):
        prepare("folder", None, tmp_path / "out", images=tmp_path / "mine")
    classes = ["vein=#0000ff", "artery=#ff0000"]
    prepare("folder", None, tmp_path / "out", images=tmp_path / "mine", classes=classes)
    np.testing.assert_array_equal(read_mask(tmp_path / "out/masks/0.png"), np.array([0, 2, 1])[labels])
    text = (tmp_path / "out" / "data.yaml").read_text()
    assert '  label_list: [0, 1, 2]\n  label_names: ["Background", "vein", "artery"]\n' in text
    with pytest.raises(ConfigError, match="--classes and --threshold: give one"):
        prepare("folder", None, tmp_path / "x", images=tmp_path / "mine", classes=classes, threshold=3)
