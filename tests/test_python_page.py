"""docs/python.md is true: all of it runs, on fewer and smaller images and for one epoch."""

import re

import numpy as np

from benchmarks.python_page import PAGE, PICTURES, run_page
from prediction.predictor import Predictor


def test_the_page_runs(tmp_path, monkeypatch, no_pictures, capsys):
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    shorter = {
        "--count 24": "--count 8 --size 64",
        "num_epochs=12": 'num_epochs=1", "sam.img_size=64", "data_transforms.img_size=64',
        "0.9, 9)": "0.9, 2)",
    }
    short = text
    for long, one in shorter.items():
        assert text.count(long) == 1
        short = short.replace(long, one)
    names = run_page(short)
    assert isinstance(names["model"], Predictor)
    shown = re.sub(r"[\d,]+ weights", "N weights", repr(names["model"]).replace("64 x 64", "256 x 256"))
    assert shown in re.sub(r"[\d,]+ weights", "N weights", text)
    assert names["results"].best_val.native.n == 2
    assert np.array(names["masks"]).shape == (4, 64, 64)
    for name in ("python_masks.png", "python_thresholds.png"):
        assert f"](pictures/{name})" in text
        assert (tmp_path / "example" / name).is_file()
        assert (PICTURES / name).stat().st_size < 150_000
