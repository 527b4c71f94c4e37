"""Resuming: to the bit, from any moment, past damaged files, and only with the same config."""

import random
import re
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import short_runs as runs
import torch
from short_runs import (
    MODELS,
    assert_same_runs,
    config_of,
    interrupted_then_resumed,
    run,
    signal_at_call,
    signal_at_step,
)

import train
from experiments.experiment import train_and_evaluate
from main import main
from training import resume as run_state
from training.signals import StoppedError
from training.state_files import StateFolder
from utils.errors import UserError

pytestmark = pytest.mark.usefixtures("no_pictures")

FOUR = ("training.num_epochs=4",)
EVERYTHING = (
    "training.num_epochs=3",
    "training.precision=bf16",
    "training.accumulate_steps=2",
    "training.ema_decay=0.9",
    "training.gradient_checkpointing=true",
    "training.schedular=cosine",
    "prompts.text_affine_norm=batchnorm",
    "sam.mask_head=detail",
    "data_transforms.scale=native",
    "data.num_workers=2",
)


def counted_steps(monkeypatch):
    """A list that grows by one with every optimizer step from now on."""
    steps, original = [], train.train_step
    monkeypatch.setattr(train, "train_step", lambda *arguments: steps.append(1) or original(*arguments))
    return steps


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_two_and_two_epochs_equal_four_to_the_bit(workspace, monkeypatch, model, optimizer):
    """LoRA's dropout draws from torch's generator, augmentation from (seed, epoch, index); workers load."""
    overrides = (*model, *FOUR, f"training.optimizer={optimizer}", "data.num_workers=2")
    run(workspace, "whole/m.safetensors", *overrides)
    signal_at_call(monkeypatch, train, "_log_epoch", 2)  # the epoch's state is saved: the next one never begins
    interrupted_then_resumed(workspace, "cut/m.safetensors", *overrides)
    assert_same_runs(workspace.folder / "whole", workspace.folder / "cut")
    assert [line["epoch"] for line in runs.records(workspace.folder / "cut")] == [1, 2, 3, 4]


@pytest.mark.parametrize("step", [1, 2, 3], ids=lambda step: f"step {step}")
def test_a_signal_within_an_epoch_loses_no_step(workspace, monkeypatch, step):
    """2 steps an epoch: within the first, at its end, within the second."""
    run(workspace, "whole/m.safetensors")
    signal_at_step(monkeypatch, step)
    steps = counted_steps(monkeypatch)
    interrupted_then_resumed(workspace, "cut/m.safetensors")
    assert len(steps) == 4
    assert_same_runs(workspace.folder / "whole", workspace.folder / "cut")


def test_all_options_at_once_resume_within_an_epoch_to_the_bit(workspace, monkeypatch):
    run(workspace, "whole/m.safetensors", *EVERYTHING)
    signal_at_step(monkeypatch, 3)
    interrupted_then_resumed(workspace, "cut/m.safetensors", *EVERYTHING)
    assert_same_runs(workspace.folder / "whole", workspace.folder / "cut")


def test_a_signal_in_the_validation_keeps_the_epochs_steps_and_not_the_averaged_weights(workspace, monkeypatch):
    overrides = ("training.ema_decay=0.9", "training.lr=0.01")
    run(workspace, "whole/m.safetensors", *overrides)
    steps = counted_steps(monkeypatch)
    signal_at_call(monkeypatch, train, "mean_dice", 1)
    interrupted_then_resumed(workspace, "cut/m.safetensors", *overrides)
    assert len(steps) == 4
    assert_same_runs(workspace.folder / "whole", workspace.folder / "cut")


def test_every_generator_is_put_back(workspace, monkeypatch):
    signal_at_step(monkeypatch, 1)
    drawn = []

    def note(*_):
        drawn.append((random.random(), float(np.random.rand()), float(np.random.randn()), float(torch.rand(()))))

    original = run_state.save_state

    def save_then_draw(current):
        original(current)
        note()

    monkeypatch.setattr(train, "save_state", save_then_draw)
    with pytest.raises(StoppedError):
        run(workspace, "r/m.safetensors")
    loaded = train.load_state

    def load_then_draw(current):
        loaded(current)
        note()

    monkeypatch.setattr(train, "load_state", load_then_draw)
    run(workspace, "r/m.safetensors", resume=True)
    assert drawn[1] == drawn[2]  # 0: the state that a run begins with, 1: at the signal, 2: taken up


def stopped_after_two_epochs(workspace, monkeypatch, name="cut", settings=FOUR):
    with monkeypatch.context() as patch:
        signal_at_call(patch, train, "_log_epoch", 2)
        with pytest.raises(StoppedError):
            run(workspace, f"{name}/m.safetensors", *settings)
    return StateFolder(workspace.folder / name / "last")


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def spoil_checksum(path):
    path.with_name(f"{path.name}.sha256").write_text("0" * 64 + "\n")


def test_a_damaged_state_is_noticed_and_the_one_before_is_used(workspace, monkeypatch, caplog):
    run(workspace, "whole/m.safetensors", *FOUR)
    states = stopped_after_two_epochs(workspace, monkeypatch)
    newest, before = states.states()
    assert [states.read(path)["progress"]["epoch"] for path in (newest, before)] == [2, 1]
    caplog.set_level("INFO")
    for damage in (truncate, flip_a_bit, Path.unlink, spoil_checksum):
        folder = workspace.folder / damage.__name__
        shutil.copytree(workspace.folder / "cut", folder)
        damage(folder / "last" / newest.name)
        caplog.clear()
        run(workspace, f"{damage.__name__}/m.safetensors", *FOUR, resume=True)
        assert re.search(f"{newest.name}: is (damaged|missing).*; the state before it is used", caplog.text)
        assert f"{before.name}: resumed after epoch 1, step 0" in caplog.text
        assert_same_runs(workspace.folder / "whole", folder)


def test_more_epochs_without_a_state_to_go_on_from_are_refused(workspace, capsys):
    arguments = workspace.train_arguments("r/m.safetensors", "--training_strategy", "lora", "--resume", "auto", "--set")
    assert main([*arguments, "training.num_epochs=1"]) == 0
    shutil.rmtree(workspace.folder / "r" / "last")
    assert main([*arguments, "training.num_epochs=1"]) == 0
    assert main([*arguments, "training.num_epochs=2"]) == 1
    assert "r: has fewer epochs than 2, and no state in last/ to go on from" in capsys.readouterr().err


def test_where_every_state_is_damaged_resuming_is_refused(workspace, monkeypatch):
    for state in stopped_after_two_epochs(workspace, monkeypatch).states():
        truncate(state)
    with pytest.raises(UserError, match="last: every state in it is damaged; give another --save_path"):
        run(workspace, "cut/m.safetensors", *FOUR, resume=True)


def test_a_full_disk_is_one_line_and_the_state_before_goes_on(workspace, monkeypatch, capsys):
    """The limit on a file's size stands for the disk: a write fails halfway through the state of epoch 2."""
    run(workspace, "whole/m.safetensors", *FOUR)
    arguments = workspace.train_arguments(
        "cut/m.safetensors", "--training_strategy", "lora", "--set", "training.num_epochs=4"
    )
    original, calls = train.save_state, iter(range(10))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def save(current):
        if next(calls) == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            original(current)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    with monkeypatch.context() as patch:
        patch.setattr(train, "save_state", save)
        assert main(arguments) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.fullmatch(r"error: .*state_000003\.pth: cannot be written \(File too large\); .*", error)
    states = StateFolder(workspace.folder / "cut" / "last")
    assert {path.name for path in states.folder.iterdir()} == {
        f"state_00000{i}.pth{end}" for i in (1, 2) for end in ("", ".sha256")
    }
    run(workspace, "cut/m.safetensors", *FOUR, resume=True)
    assert_same_runs(workspace.folder / "whole", workspace.folder / "cut")


def test_another_config_is_refused_with_the_keys_that_differ(workspace, monkeypatch):
    stopped_after_two_epochs(workspace, monkeypatch)
    changed = (*FOUR, "training.lr=0.5", "data_transforms.use_rotation=false", "training.clip_grad_norm=1")
    with pytest.raises(UserError) as caught:
        run(workspace, "cut/m.safetensors", *changed, resume=True)
    message = str(caught.value)
    assert "was trained with another config: data_transforms.use_rotation was true, is false" in message
    assert "training.clip_grad_norm was not set, is 1.0; training.lr was 0.001, is 0.5; resume with" in message
    assert message.count(" was ") == 4
    with pytest.raises(UserError, match=r"training\.lr was 0\.001, is 0\.5"):
        run(workspace, "cut/m.safetensors", *changed, resume="auto")


def test_other_base_weights_are_refused(workspace, monkeypatch):
    states = stopped_after_two_epochs(workspace, monkeypatch)
    states.save({**states.read(states.newest()), "base_sha256": "0" * 64})
    with pytest.raises(UserError, match="was trained on other base weights"):
        run(workspace, "cut/m.safetensors", *FOUR, resume=True)


@pytest.mark.parametrize("change", ["split", "removed", "image", "mask"])
def test_changed_data_are_refused_with_their_rows(workspace, monkeypatch, change):
    stopped_after_two_epochs(workspace, monkeypatch)
    table = workspace.data / "data_split.csv"
    before = table.read_text()
    if change == "split":
        table.write_text(before.replace("train1.png,train", "train1.png,test"))
        message = (
            r"data_split.csv: has changed since .*state_000003.pth was saved: train1.png was train, is test; put it"
        )
    elif change == "removed":
        table.write_text(before.replace("train1.png,train\n", "").replace("test1.png,test\n", ""))
        message = r"test1.png was test, is not there; train1.png was train, is not there; put it back"
    else:
        path = workspace.data / f"{change}s" / "val1.png"
        path.write_bytes((workspace.data / f"{change}s" / "val0.png").read_bytes())
        message = r"set: has changed since .* was saved: val1.png or its mask is another; put it back"
    for resume in (True, "auto"):
        with pytest.raises(UserError, match=message):
            run(workspace, "cut/m.safetensors", *FOUR, resume=resume)


def test_a_damaged_best_epoch_is_noticed_on_resuming(workspace, monkeypatch, caplog):
    stopped_after_two_epochs(workspace, monkeypatch)
    truncate(workspace.folder / "cut" / "best_val.safetensors")
    results = run(workspace, "cut/m.safetensors", *FOUR, resume=True)
    assert "best_val.safetensors: cannot be read as weights" in caplog.text
    assert "the best of the epochs to come is taken" in caplog.text
    assert results.best_val.epoch in (3, 4)
    (workspace.folder / "cut" / "results.json").unlink()
    truncate(workspace.folder / "cut" / "best_val.safetensors")
    with pytest.raises(
        UserError, match=r"best_val\.safetensors: .* all epochs are trained, so put it back, or train anew"
    ):
        run(workspace, "cut/m.safetensors", *FOUR, resume=True)


def test_patience_does_not_count_from_a_best_epoch_that_is_lost(workspace, monkeypatch):
    """It ended the run at once, and the evaluation had no best epoch."""
    settings = (*FOUR, "training.patience=2")
    stopped_after_two_epochs(workspace, monkeypatch, settings=settings)
    (workspace.folder / "cut" / "best_val.safetensors").unlink()
    results = run(workspace, "cut/m.safetensors", *settings, resume=True)
    assert results.best_val.epoch in (3, 4)


def test_resume_needs_a_run_and_resume_auto_does_not(workspace, monkeypatch):
    with pytest.raises(UserError, match="last: nothing to resume; start without --resume"):
        run(workspace, "r/m.safetensors", resume=True)
    assert not (workspace.folder / "r").exists()
    run(workspace, "whole/m.safetensors", *FOUR)
    stopped_after_two_epochs(workspace, monkeypatch)
    run(workspace, "cut/m.safetensors", *FOUR, resume="auto")
    run(workspace, "new/m.safetensors", *FOUR, resume="auto")
    for name in ("cut", "new"):
        assert_same_runs(workspace.folder / "whole", workspace.folder / name)


def test_a_run_killed_between_its_first_record_and_state_resumes_by_auto(workspace, monkeypatch):
    run(workspace, "whole/m.safetensors", *FOUR)
    original, calls = train.save_state, iter(range(10))

    def killed(current):
        if next(calls) == 1:  # the first epoch's record is written, its state is not
            raise KeyboardInterrupt
        original(current)

    with monkeypatch.context() as patch:
        patch.setattr(train, "save_state", killed)
        with pytest.raises(KeyboardInterrupt):
            run(workspace, "cut/m.safetensors", *FOUR)
    assert lines_of(workspace.folder / "cut") == 1
    run(workspace, "cut/m.safetensors", *FOUR, resume="auto")
    assert_same_runs(workspace.folder / "whole", workspace.folder / "cut")


def test_resume_auto_leaves_a_finished_run_and_returns_its_results(workspace, capsys):
    first = run(workspace, "r/m.safetensors")
    before = {path: path.stat().st_mtime_ns for path in (workspace.folder / "r").rglob("*")}
    assert run(workspace, "r/m.safetensors", resume="auto") == first
    assert before == {path: path.stat().st_mtime_ns for path in (workspace.folder / "r").rglob("*")}
    assert main(workspace.train_arguments("r/m.safetensors", "--resume", "always")) == 2
    assert "--resume: takes no value or auto, not 'always'" in capsys.readouterr().err


def test_an_unfinished_run_is_not_overwritten(workspace, monkeypatch):
    """Also where it has not completed an epoch."""
    signal_at_step(monkeypatch, 1)
    with pytest.raises(StoppedError):
        run(workspace, "r/m.safetensors")
    states = StateFolder(workspace.folder / "r" / "last")
    before = states.newest().read_bytes()
    with pytest.raises(UserError, match="holds an unfinished run; resume it with --resume"):
        run(workspace, "r/m.safetensors")
    assert states.newest().read_bytes() == before


def lines_of(folder):
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _train(config, save_path, resume):
    train_and_evaluate(config, save_path, torch.device("cpu"), resume)


@pytest.mark.slow
def test_killed_at_twelve_random_moments_it_always_goes_on_and_ends_as_if_never_killed(workspace):
    """kill -9, wherever the run is: building, training, saving, evaluating, or not yet begun."""
    overrides = ("training.num_epochs=30", "data.num_workers=1", "training.ema_decay=0.9")
    config = config_of(workspace, *overrides)
    [code] = runs.exit_codes([runs.start(_train, config, workspace.folder / "whole" / "m.safetensors", False)])
    assert code == 0
    folder = workspace.folder / "killed"
    moments, states, known = random.Random(0), StateFolder(folder / "last"), 0
    kills = 0
    while kills < 12:
        process = runs.start(_train, config, folder / "m.safetensors", "auto")
        # So many epochs on, then a moment more: however slow the machine is, every second run gets on.
        target = lines_of(folder) + moments.choice([0, 0, 0, 1, 2, 3])
        while lines_of(folder) < target and process.exitcode is None:
            process.join(0.02)
        process.join(moments.uniform(0.0, 1.5))
        if process.exitcode is not None:
            assert process.exitcode == 0
            (folder / "results.json").unlink()  # finished: what is left to kill is the evaluation
            continue
        process.kill()
        process.join()
        kills += 1
        lines = lines_of(folder)
        if states.states():
            epoch = states.read(states.newest())["progress"]["epoch"]
            assert epoch >= max(known, lines - 1)
            known = epoch
        else:
            assert known == lines == 0
    assert known > 2
    (folder / "results.json").unlink(missing_ok=True)
    assert runs.exit_codes([runs.start(_train, config, folder / "m.safetensors", "auto")]) == [0]
    assert_same_runs(workspace.folder / "whole", folder)
