"""The command line on a set without validation images, early stopping, and more epochs for a finished run."""

import csv
import json

import pytest
from short_runs import assert_same_runs, run, signal_at_step

from datasets import validation
from main import main
from model import load_trained
from training.signals import StoppedError
from utils.errors import ConfigError, UserError


@pytest.fixture
def no_validation(workspace):
    """The workspace without validation images: 6 training and 2 test images."""
    split = workspace.data / "data_split.csv"
    split.write_text(split.read_text().replace(",val", ",train"))
    return workspace


def splits_of(path):
    rows = list(csv.DictReader(path.open()))
    return {split: [row["imgs"] for row in rows if row["split"] == split] for split in ("train", "val", "test")}


def test_a_set_without_validation_images_trains_and_says_so(no_validation, capfd, caplog):
    caplog.set_level("INFO")
    assert main(no_validation.train_arguments("run/m.safetensors")) == 0
    folder = no_validation.folder / "run"
    splits = splits_of(folder / "data_split.csv")
    assert {split: len(names) for split, names in splits.items()} == {"train": 5, "val": 1, "test": 2}
    drawn = "images: 5 train, 1 val (drawn from the training images by data.val_fraction and seed 0), 2 test"
    assert drawn in caplog.text
    assert "epoch chosen on validation images" in capfd.readouterr().out
    results = json.loads((folder / "results.json").read_text())
    assert (results["val_split"], results["epoch_chosen_on"]) == ("val", "validation images")
    assert (
        main(no_validation.train_arguments("other/m.safetensors", "--seed", "1", "--set", "data.val_fraction=0.5")) == 0
    )
    assert len(splits_of(no_validation.folder / "other" / "data_split.csv")["val"]) == 3


def test_a_resumed_run_keeps_its_split_where_another_would_be_drawn(no_validation, monkeypatch):
    """As by a later version of the draw; a split file that has changed is refused (test_resume)."""
    four = ("training.num_epochs=4",)
    run(no_validation, "whole/m.safetensors", *four)
    with monkeypatch.context() as patch:
        signal_at_step(patch, 4)
        with pytest.raises(StoppedError):
            run(no_validation, "cut/m.safetensors", *four)
    recorded = (no_validation.folder / "cut" / "data_split.csv").read_text()
    draw = validation.draw_validation
    with monkeypatch.context() as patch:
        patch.setattr(validation, "draw_validation", lambda rows, fraction, seed: draw(rows, fraction, seed + 1))
        run(no_validation, "other/m.safetensors", *four)
        run(no_validation, "cut/m.safetensors", *four, resume=True)
    assert (no_validation.folder / "other" / "data_split.csv").read_text() != recorded
    assert (no_validation.folder / "cut" / "data_split.csv").read_text() == recorded
    assert_same_runs(no_validation.folder / "whole", no_validation.folder / "cut")


def test_an_epoch_chosen_on_test_images_is_called_that_everywhere(no_validation, capfd, caplog, monkeypatch):
    from matplotlib.figure import Figure

    titles = []
    monkeypatch.setattr(Figure, "suptitle", lambda self, text, **_: titles.append(text))
    caplog.set_level("INFO")
    arguments = no_validation.train_arguments("run/m.safetensors", "--set", "data.val=test")
    assert main(arguments) == 0
    assert "images: 6 train, 2 test; epoch chosen on test images" in caplog.text
    assert "Dice of test images" in caplog.text
    assert "val Dice" not in caplog.text
    assert "epoch chosen on test images): Dice" in capfd.readouterr().out
    assert titles == ["epoch chosen on test images"]
    results = json.loads((no_validation.folder / "run" / "results.json").read_text())
    assert results["epoch_chosen_on"] == "test images"
    report = no_validation.folder / "table"
    assert (
        main(["table", "--runs", str(no_validation.folder / "run"), "--output", str(report), "--weights", "best_val"])
        == 0
    )
    for name in ("table.md", "table.tex", "index.html"):
        assert "epoch chosen on test images" in (report / name).read_text()
    assert "validation Dice" not in (report / "index.html").read_text()


def test_patience_ends_the_run_and_a_resumed_one_alike(workspace, monkeypatch, caplog):
    """With a learning rate of almost zero no epoch is better than the first."""
    caplog.set_level("INFO")
    patient = ("training.num_epochs=9", "training.patience=2", "training.lr=1e-12")
    assert run(workspace, "whole/m.safetensors", *patient).epochs == 3
    assert "no better epoch since epoch 1 (training.patience)" in caplog.text
    with monkeypatch.context() as patch:
        signal_at_step(patch, 5)
        with pytest.raises(StoppedError):
            run(workspace, "cut/m.safetensors", *patient)
    assert run(workspace, "cut/m.safetensors", *patient, resume=True).epochs == 3
    assert_same_runs(workspace.folder / "whole", workspace.folder / "cut")
    assert run(workspace, "rare/m.safetensors", *patient, "training.val_every=4").epochs == 8


@pytest.mark.usefixtures("no_pictures")
def test_no_new_run_ends_by_its_test_images_and_a_resumed_one_goes_on(workspace):
    both = ("data.val=test", "training.patience=5")
    with pytest.raises(ConfigError, match="a run that ends by its test images falsifies"):
        run(workspace, "r/m.safetensors", *both)
    run(workspace, "r/m.safetensors", "data.val=test", "training.num_epochs=1")
    assert run(workspace, "r/m.safetensors", *both, "training.num_epochs=2", resume=True).epochs == 2
    assert load_trained(workspace.folder / "r" / "m.safetensors")[1].training.patience == 5


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("resume", [True, "auto"])
def test_a_finished_run_takes_more_epochs_and_equals_one_that_had_them(workspace, resume):
    run(workspace, "whole/m.safetensors", "training.num_epochs=4")
    run(workspace, "r/m.safetensors", "training.num_epochs=2")
    assert run(workspace, "r/m.safetensors", "training.num_epochs=4", resume=resume).epochs == 4
    assert_same_runs(workspace.folder / "whole", workspace.folder / "r")
    assert (workspace.folder / "r" / "config.yaml").read_text() == (
        workspace.folder / "whole" / "config.yaml"
    ).read_text()
    with pytest.raises(UserError, match=r"training\.num_epochs was 4, is 3"):
        run(workspace, "r/m.safetensors", "training.num_epochs=3", resume=resume)
    with pytest.raises(UserError, match=r"training\.lr was 0\.001, is 0\.5"):
        run(workspace, "r/m.safetensors", "training.num_epochs=5", "training.lr=0.5", resume=resume)


@pytest.mark.usefixtures("no_pictures")
def test_more_epochs_that_a_signal_stops_are_unfinished_and_resume(workspace, monkeypatch):
    run(workspace, "whole/m.safetensors", "training.num_epochs=4")
    run(workspace, "r/m.safetensors", "training.num_epochs=2")
    with monkeypatch.context() as patch:
        signal_at_step(patch, 1)
        with pytest.raises(StoppedError, match=r"the run is in .*r\)"):
            run(workspace, "r/m.safetensors", "training.num_epochs=4", resume="auto")
    assert not (workspace.folder / "r" / "results.json").exists()
    run(workspace, "r/m.safetensors", "training.num_epochs=4", resume="auto")
    assert_same_runs(workspace.folder / "whole", workspace.folder / "r")
