"""Trackers: what each writes offline is read back, a failing one ends no run, and none changes what is computed."""

import json
import logging
import sys
import zipfile
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from short_runs import assert_same_runs, records, run, signal_at_step

from training.run_log import RunLog
from training.signals import StoppedError

pytestmark = pytest.mark.usefixtures("no_pictures")


def summary_events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0}).Reload()
    return events


def test_tensorboard_has_small_pictures_of_the_best_epochs(workspace):
    run(workspace, "r/m.safetensors", "training.num_epochs=3")
    events, lines = summary_events(workspace.folder / "r"), records(workspace.folder / "r")
    tags = events.Tags()["images"]
    assert tags == ["val/val0.png/Bar", "val/val1.png/Bar"]
    dices = [line["val"]["dice"] for line in lines]
    best = [epoch for epoch, dice in enumerate(dices, 1) if dice > max([-1.0, *dices[: epoch - 1]])]
    for tag in tags:
        pictures = events.Images(tag)
        assert [picture.step for picture in pictures] == best
        assert {(picture.height, picture.width) for picture in pictures} == {(32, 4 * 27 + 3 * 4)}


@pytest.mark.slow
def test_without_trackers_there_are_only_lines_and_the_same_weights(workspace):
    run(workspace, "with/m.safetensors")
    run(workspace, "without/m.safetensors", "training.trackers=[]")
    assert not (workspace.folder / "without" / "tensorboard").exists()
    assert_same_runs(workspace.folder / "with", workspace.folder / "without")


def warnings_of(caplog):
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    return [line for line in lines if line.startswith("tracker ")]


class Wandb(ModuleType):
    """A wandb that notes what it is given, and can fail at any call."""

    def __init__(self, fails_at=""):
        super().__init__("wandb")
        self.calls, self.fails_at = [], fails_at
        self.config = SimpleNamespace(update=lambda values, **_: self.note("config", values))

    def note(self, what, values, **more):
        self.calls.append((what, values, more))
        if what == self.fails_at:
            raise RuntimeError("no\nnetwork")

    def init(self, **options):
        self.note("init", options)
        return SimpleNamespace(
            log=lambda values, **more: self.note("log", values, **more), finish=lambda: self.note("finish", None)
        )

    @staticmethod
    def Image(picture):  # noqa: N802
        return np.asarray(picture)


@pytest.mark.parametrize("fails_at", ["init", "config", "log", "finish"])
def test_a_tracker_that_fails_is_one_warning(tmp_path, monkeypatch, caplog, fails_at):
    monkeypatch.setitem(sys.modules, "wandb", Wandb(fails_at))
    with RunLog(tmp_path, trackers=["tensorboard", "wandb"], config={"seed": 1}) as log:
        for epoch in (1, 2):
            log.epoch({"epoch": epoch, "val": {"dice": 0.5}})
            log.pictures({"eye": np.zeros((4, 5, 3), np.uint8)}, epoch)
    assert warnings_of(caplog) == ["tracker wandb: no network; the run goes on without it"]
    assert len(summary_events(tmp_path).Scalars("val/dice")) == 2


def test_a_missing_package_is_one_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "comet_ml", None)
    with RunLog(tmp_path, trackers=["comet"]) as log:
        log.epoch({"epoch": 1})
    [warned] = warnings_of(caplog)
    assert warned.startswith("tracker comet: it needs the package comet_ml, which cannot be imported")
    assert warned.endswith("or pip install -r requirements-trackers.txt; the run goes on without it")


def test_a_resumed_run_goes_on_with_its_trackers_run(workspace, monkeypatch):
    """And others may join it."""
    fake = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    signal_at_step(monkeypatch, 3)
    with pytest.raises(StoppedError):
        run(workspace, "r/m.safetensors", "training.trackers=[wandb]")
    run(workspace, "r/m.safetensors", "training.trackers=[wandb,tensorboard]", resume=True)
    starts = [values for what, values, _ in fake.calls if what == "init"]
    kept = json.loads((workspace.folder / "r" / "trackers.json").read_text())
    assert [start["id"] for start in starts] == [kept["wandb"]] * 2
    steps = [more["step"] for what, values, more in fake.calls if what == "log" and "val/dice" in values]
    assert steps == [1, 2]
    pictures = [values for what, values, _ in fake.calls if what == "log" and "val/val0.png/Bar" in values]
    assert pictures[0]["val/val0.png/Bar"][0].shape == (32, 120, 3)
    [settings] = [values for what, values, _ in fake.calls if what == "config"]
    assert (settings["training.lr"], settings["strategy"]) == (1e-3, "lora")


@pytest.mark.slow
def test_wandb_offline(workspace, monkeypatch):
    pytest.importorskip("wandb", reason="the optional package wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run(workspace, "r/m.safetensors", "training.trackers=[wandb]")
    [file] = (workspace.folder / "r" / "wandb").glob("offline-run-*/*.wandb")
    content = file.read_bytes()
    for text in (b"val/dice", b"training.lr", b"loss/total"):
        assert text in content
    pictures = list(file.parent.rglob("*.png"))
    assert len(pictures) == 2 * len([path for path in pictures if "val0" in str(path)])


@pytest.mark.slow
def test_mlflow_offline(workspace, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="the optional package mlflow is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (workspace.folder / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    run(workspace, "r/m.safetensors", "training.trackers=[mlflow]")
    number = json.loads((workspace.folder / "r" / "trackers.json").read_text())["mlflow"]
    client = mlflow.MlflowClient((workspace.folder / "store").as_uri())
    kept = client.get_metric_history(number, "val/dice")
    expected = [line["val"]["dice"] for line in records(workspace.folder / "r")]
    assert [(point.step, point.value) for point in kept] == list(enumerate(expected, 1))
    assert client.get_run(number).data.params["training.lr"] == "0.001"


@pytest.mark.slow
def test_comet_offline(workspace, monkeypatch):
    pytest.importorskip("comet_ml", reason="the optional package comet_ml is not installed")
    monkeypatch.setenv("COMET_START_ONLINE", "0")
    run(workspace, "r/m.safetensors", "training.trackers=[comet]")
    [archive] = (workspace.folder / "r").glob("*.zip")
    with zipfile.ZipFile(archive) as content:
        lines = [json.loads(line) for line in content.read("messages.json").decode().splitlines()]
    text = json.dumps(lines)
    for line in records(workspace.folder / "r"):
        assert str(line["val"]["dice"])[:12] in text
    assert "training.lr" in text
