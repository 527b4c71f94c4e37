"""Several processes: the same weights and scores as one, one writer, and one end for all."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import short_runs as runs
import torch
from short_runs import ROOT, all_differences, assert_same_runs, config_of, records, run, start_group

import train
from datasets.batches import StepBatches
from experiments import experiment, scoring
from main import main
from training.batch_norm import frozen_batch_norm, sync_batch_norm
from training.run_log import read_metrics
from training.state_files import StateFolder
from utils.config.schema import TrainingConfig
from utils.errors import UserError

pytestmark = pytest.mark.usefixtures("no_pictures")

# 10 samples in steps of 8: the last has 2, all of them the first process'.
UNEVEN = ("training.batch_size=8", "training.num_epochs=1", "training.lr=0.01")
BATCH_NORM = ("prompts.text_affine_norm=batchnorm", "training.optimizer=sgd", "training.lr=0.1")


@pytest.mark.parametrize(("parts", "processes"), [(1, 1), (1, 2), (2, 2), (1, 3)])
def test_every_sample_is_in_one_batch_of_its_step(parts, processes):
    data, size = list(range(29)), 12
    for step in range(3):
        expected = None
        seen, shares = [], 0.0
        for process in range(processes):
            batches = StepBatches(data, size, 3, parts, process, processes)
            batches.set_position(5, step)
            whole = StepBatches(data, size, 3)
            whole.set_position(5, step)
            expected = next(iter(whole))
            assert len(batches) == (3 - step) * parts
            own = list(batches)[:parts]
            for part, batch in enumerate(own):
                share = batches.share(step, part)
                seen += batch if share else []
                shares += share
                assert share == (len(batch) / len(expected) if share else 0)
        assert sorted(seen) == sorted(expected)
        assert shares == pytest.approx(1)


def _train(config, save_path, resume=False, number=None, step=0):
    """A run in one of several processes; the first may send itself a signal at a step. Returns the exit status."""
    experiment.plot_curves = scoring.save_overlay = lambda *_, **__: None
    if number is not None and os.environ["RANK"] == "1":
        original, calls = train.train_step, iter(range(1, 1000))

        def step_with_signal(*arguments):
            if next(calls) == step:
                os.kill(os.getpid(), number)
            return original(*arguments)

        train.train_step = step_with_signal
    try:
        experiment.train_and_evaluate(config, save_path, torch.device("cpu"), resume)
    except UserError as error:
        print(f"process {os.environ['RANK']}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def together(workspace, name, *overrides, strategy="salt", count=2, **options):
    """The exit statuses of a run by `count` processes."""
    config = config_of(workspace, *overrides, strategy=strategy)
    save_path = workspace.folder / name / "m.safetensors"
    arguments = (options.get("resume", False), options.get("number"), options.get("step", 0))
    return runs.exit_codes(start_group(count, _train, config, save_path, *arguments))


@pytest.fixture
def uneven(workspace, draw_dataset):
    """5 training, 1 validation and 3 test images of two labels."""
    data = workspace.folder / "odd"
    draw_dataset(data, {"train": 5, "val": 1, "test": 3}, labels=2)
    workspace.data_config.write_text(
        f"data: {{root_path: {data}, label_list: [0, 1, 2], label_names: [Background, Bar, Rod]}}\n"
        "data_transforms: {use_rotation: true}\n"
    )
    return workspace


@pytest.mark.parametrize("model", runs.MODELS.values(), ids=runs.MODELS)
def test_two_processes_with_half_the_batch_each_give_the_weights_of_one(uneven, model):
    """After an epoch at whose end one process pads."""
    run(uneven, "one/m.safetensors", *model, *UNEVEN, strategy="salt")
    assert together(uneven, "two", *model, *UNEVEN) == [0, 0]
    one, two = uneven.folder / "one", uneven.folder / "two"
    # AdamW's first steps have the size of the learning rate however small a gradient is, and some weights of a random
    # model have gradients that are hardly more than rounding.
    differences = all_differences(one, two)
    assert (differences > 1e-5).sum() < 1e-4 * differences.numel()
    assert differences.max() < 1e-4

    first, second = (json.loads((folder / "results.json").read_text()) for folder in (one, two))
    assert (first["processes"], second["processes"]) == (1, 2)
    assert second["last"]["native"]["n"] == 6
    for weights in ("last", "best_val"):
        assert second[weights]["img_size"]["dice"]["mean"] == pytest.approx(first[weights]["img_size"]["dice"]["mean"])
    rows = [list(csv.reader((folder / "per_image.csv").open())) for folder in (one, two)]
    assert [row[:3] for row in rows[0]] == [row[:3] for row in rows[1]]
    lines = records(one), records(two)
    assert lines[0][0]["val"]["dice"] == pytest.approx(lines[1][0]["val"]["dice"])
    assert lines[0][0]["loss"] == pytest.approx(lines[1][0]["loss"], abs=1e-6)
    assert lines[0][0]["train"] == pytest.approx(lines[1][0]["train"], abs=1e-6)
    assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}
    assert len(list((two / "tensorboard").iterdir())) == 1  # one writer


def test_on_cpus_batch_norm_stays_each_processes_own_and_the_log_says_so(uneven, caplog):
    norm, model = torch.nn.BatchNorm2d(3), torch.nn.Sequential()
    sync_batch_norm(model, torch.device("cpu"))
    assert not caplog.messages
    model.append(norm)
    sync_batch_norm(model, torch.device("cpu"))
    assert model[0] is norm
    assert "training.sync_batch_norm: needs GPUs" in caplog.text
    assert together(uneven, "two", *UNEVEN, *BATCH_NORM) == [0, 0]


def test_on_gpus_torchs_own_synchronized_batch_norm_takes_over(workspace):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    weight = model[1].weight
    sync_batch_norm(model, torch.device("cuda"))
    assert isinstance(model[1], torch.nn.SyncBatchNorm)
    assert model[1].weight is weight
    with frozen_batch_norm(model, True):  # its part of the exchange is waited for
        assert model[1].training


def test_a_signal_to_one_process_stops_both_and_they_go_on_to_the_bit(workspace):
    overrides = ("training.num_epochs=2", "training.ema_decay=0.9")
    assert together(workspace, "whole", *overrides, strategy="lora") == [0, 0]
    assert together(workspace, "cut", *overrides, strategy="lora", number=signal.SIGUSR1, step=1) == [3, 3]
    states = StateFolder(workspace.folder / "cut" / "last")
    assert states.read(states.newest())["progress"]["so_far"]["step"] == 1
    assert together(workspace, "cut", *overrides, strategy="lora", resume=True) == [0, 0]
    assert_same_runs(workspace.folder / "whole", workspace.folder / "cut")


@pytest.mark.slow
def test_adapters_without_an_effect_do_not_stop_several_processes(workspace):
    """Those of the levels of SAM2's neck that nothing uses then; the second step once failed."""
    more = ("sam.high_res_features=false", "sam.img_size=64")
    assert together(workspace, "two", "arch=Prompt Adapted SAM 2", *more, strategy="lora") == [0, 0]


def test_an_error_of_the_main_process_ends_all_with_its_status(workspace):
    run(workspace, "r/m.safetensors", strategy="none")
    assert together(workspace, "r", strategy="none") == [1, 1]


def test_processes_that_do_not_divide_the_batch_are_refused(workspace):
    assert together(workspace, "r", "training.batch_size=3") == [2, 2]
    assert not (workspace.folder / "r").exists()


def test_the_error_of_another_process_is_one_line(workspace, monkeypatch, capsys):
    def lost(*_):
        raise RuntimeError("[gloo] Connection closed by peer\nmore")

    monkeypatch.setattr(experiment, "fit", lost)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("experiments.experiment.Processes", lambda *_: lost())
    assert main(workspace.train_arguments()) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error == "error: process 1: [gloo] Connection closed by peer (--debug shows where)"


def test_a_gpu_for_each_process(monkeypatch):
    from utils.device import resolve_device
    from utils.errors import ConfigError

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda", 1)
    with pytest.raises(ConfigError, match="one GPU for several processes; use cuda"):
        resolve_device("cuda:0")


def test_the_default_of_the_batch_norm_choice():
    assert TrainingConfig().sync_batch_norm


def torchrun(workspace, name, *overrides):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "main.py"]
    arguments = workspace.train_arguments(f"{name}/m.safetensors", "--set", *overrides)
    return subprocess.Popen(
        [*command, *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


@pytest.mark.slow
def test_the_real_torchrun_passes_a_signal_on_and_the_run_resumes(workspace):
    overrides = ("training.num_epochs=300", "training.batch_size=2")
    process = torchrun(workspace, "r", *overrides)
    metrics = Path(workspace.folder / "r" / "metrics.jsonl")
    deadline = time.monotonic() + 300
    while not (metrics.exists() and len(read_metrics(metrics)) >= 2):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "error: stopped by a signal" in stderr, stderr
    states = StateFolder(workspace.folder / "r" / "last")
    assert states.read(states.newest())["progress"]["epoch"] >= 2
    assert not (workspace.folder / "r" / "results.json").exists()


@pytest.mark.slow
def test_the_loss_of_one_process_ends_the_whole_run(workspace):
    """An image that cannot be read when its turn comes; nothing waits for the process that is gone."""
    (workspace.folder / "broken").mkdir()
    code = (
        "import os, sys, train; original = train.train_step\n"
        "def step(*a):\n"
        "    if os.environ['RANK'] == '1': raise train.UserError('image x.png: cannot be read')\n"
        "    return original(*a)\n"
        "train.train_step = step\n"
        "from main import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    script = workspace.folder / "broken" / "broken_main.py"
    script.write_text(code)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", str(script)]
    done = subprocess.run(
        [*command, *workspace.train_arguments("r/m.safetensors")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode != 0
    assert "error: image x.png: cannot be read" in done.stderr


@pytest.mark.slow
def test_ranks_are_cut_as_by_one_process(workspace):
    """The parameters are replaced halfway, and the second half's gradients are averaged as the first one's."""
    prune = ("ft.rank_rule=prune", "ft.rank_budget=0.043", "ft.relu=none", "training.optimizer=sgd", "training.lr=0.1")
    prune += ("ft.rank_penalty=0.001", "ft.salt_init=normal")
    assert together(workspace, "two", *prune) == [0, 0]
    run(workspace, "one/m.safetensors", *prune, strategy="salt")
    one, two = (json.loads((workspace.folder / name / "results.json").read_text()) for name in ("one", "two"))
    assert one["layer_ranks"] == two["layer_ranks"]
    assert one["rank_cut"]["error"] == pytest.approx(two["rank_cut"]["error"], rel=1e-3, abs=1e-6)
    assert float(all_differences(workspace.folder / "one", workspace.folder / "two").max()) < 1e-4
