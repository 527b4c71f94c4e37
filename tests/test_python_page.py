"""docs/python.md is true: all of it runs, on fewer images and for one epoch."""

import numpy as np

from benchmarks.python_page import PAGE, PICTURES, run_page
from prediction.predictor import Predictor


def test_the_page_runs(tmp_path, monkeypatch, no_pictures, capsys):
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    for long, short in (("--count 24", "--count 24 --size 64"), ("num_epochs=12", "num_epochs=1")):
        assert text.count(long) == 1
        text = text.replace(long, short)
    names = run_page(text)
    assert isinstance(names["model"], Predictor)
    assert repr(names["model"]) in text  # the two lines that the page shows
    assert names["results"].best_val.native.n == 4
    assert np.array(names["masks"]).shape == (4, 64, 64)
    for name in ("python_masks.png", "python_thresholds.png"):
        assert f"](pictures/{name})" in text
        assert (tmp_path / "example" / name).is_file()
        assert (PICTURES / name).stat().st_size < 150_000
