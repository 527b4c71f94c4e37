"""docs/config.md says what the schema says."""

from utils.config.reference import PAGE, PURPOSES, keys, page


def test_every_key_has_a_purpose():
    assert sorted(PURPOSES) == sorted(keys())


def test_the_page_is_current():
    """`python -m utils.config.reference` writes it."""
    assert PAGE.read_text(encoding="utf-8") == page()


def test_types_ranges_and_defaults():
    lines = {line.split("|")[1].strip(): line for line in page().splitlines() if line.startswith("| `")}
    assert "| number, above 0 | `0.0001` | learning rate |" in lines["`training.lr`"]
    assert "| whole number, above 0, multiple of 16 | `512` |" in lines["`sam.img_size`"]
    assert "| number, from 0, to 180 | `10` |" in lines["`data_transforms.rotation_angle`"]
    assert "| `base`, `large`, `huge`, `nano`, `base_plus`, `tiny`, `small` | `base` |" in lines["`sam.sam_type`"]
    assert "| path | required |" in lines["`data.root_path`"]
    assert "| number, above 0, below 1 | not set |" in lines["`training.ema_decay`"]
    assert "| list of number, at least 3 long, at most 3 long |" in lines["`data_transforms.pixel_mean`"]
    assert "| true, false | `false` |" in lines["`decoder_training`"]
