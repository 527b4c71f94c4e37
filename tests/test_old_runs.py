"""Run folders and weights files of an earlier version (commit f0d9689): every command still takes them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from main import main

OLD = Path(__file__).resolve().parent / "old_runs"
ROOT = OLD.parents[1]
WEIGHTS = ROOT / "weights" / "nano_sam.safetensors"


@pytest.fixture
def old(tmp_path, monkeypatch):
    """A copy of the old run folders, to write to. Their configs name data and weights from the project's root."""
    monkeypatch.chdir(ROOT)
    shutil.copytree(OLD, tmp_path / "old")
    return tmp_path / "old"


def test_old_weights_predict_the_masks_that_they_predicted(old, tmp_path):
    arguments = ["--checkpoint", str(old / "finished" / "model.safetensors"), "--images", str(OLD / "data" / "images")]
    assert main(["predict", *arguments, "--output", str(tmp_path / "masks"), "--device", "cpu"]) == 0
    for name in ("test0", "test1"):
        [path] = (tmp_path / "masks").rglob(f"{name}*.png")
        before = np.asarray(Image.open(OLD / "finished" / "predictions" / f"{name}_Bar.png"))
        assert (np.asarray(Image.open(path)) == before).mean() > 0.995


def test_old_weights_are_evaluated_to_the_old_scores(old):
    assert main(["test", "--checkpoint", str(old / "finished" / "model.safetensors"), "--device", "cpu"]) == 0
    before = json.loads((OLD / "finished" / "results.json").read_text())["last"]["native"]["dice"]["mean"]
    [results] = (old / "finished").glob("model_*/results.json")
    assert json.loads(results.read_text())["native"]["dice"]["mean"] == pytest.approx(before, abs=2e-3)


def test_an_old_unfinished_run_resumes_to_its_end(old):
    arguments = ["--model_config", str(old / "unfinished" / "config.yaml"), "--device", "cpu", "--resume"]
    assert main([*arguments, "--save_path", str(old / "unfinished" / "model.safetensors")]) == 0
    results = json.loads((old / "unfinished" / "results.json").read_text())
    assert results["epochs"] == 40
    epochs = [json.loads(line)["epoch"] for line in (old / "unfinished" / "metrics.jsonl").read_text().splitlines()]
    assert epochs == list(range(1, 41))


def test_the_table_takes_an_old_run(old, tmp_path):
    assert main(["table", "--runs", str(old / "finished"), "--output", str(tmp_path / "table")]) == 0
    assert "bars" in (tmp_path / "table" / "index.html").read_text()


def test_a_finished_old_run_is_left_as_it_is(old):
    arguments = ["--model_config", str(old / "finished" / "config.yaml"), "--device", "cpu", "--resume", "auto"]
    before = {path: path.stat().st_mtime_ns for path in (old / "finished").rglob("*")}
    assert main([*arguments, "--save_path", str(old / "finished" / "model.safetensors")]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in (old / "finished").rglob("*")}
