"""Signals: exit status 3 at every stage of a run, with nothing lost; a second one stops at once."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from short_runs import ROOT, assert_same_runs, run, signal_at_call

import train
from experiments import experiment
from main import main
from training.run_log import read_metrics
from training.signals import STOP_SIGNALS, StoppedError, StopRequests, start_workers
from training.state_files import StateFolder

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("stage", ["build_model", "score_dataset"])
def test_a_signal_outside_of_training_exits_3_and_resume_goes_straight_on(
    workspace, monkeypatch, capsys, stage, number
):
    """Before training, while the singular vectors are computed; after it, in the final evaluation."""
    arguments = workspace.train_arguments("cut/m.safetensors", "--training_strategy", "salt")
    with monkeypatch.context() as patch:
        signal_at_call(patch, experiment, stage, 1, number)
        assert main(arguments) == 3
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: stopped by a signal")
    epochs = []
    original = experiment.fit
    monkeypatch.setattr(experiment, "fit", lambda run, resume: epochs.append(run) or original(run, resume))
    assert main([*arguments, "--resume"]) == 0
    if number == signal.SIGTERM:
        run(workspace, "whole/m.safetensors", strategy="salt")
        assert_same_runs(workspace.folder / "whole", workspace.folder / "cut")


def test_the_data_loaders_workers_leave_signals_to_the_run(workspace, monkeypatch):
    """A cluster signals them too; a worker that dies of it would end the step before it is finished."""
    original, signalled = train.train_step, []

    def step(*arguments):
        result = original(*arguments)  # a worker has sent a batch: it is up
        for worker in multiprocessing.active_children():
            os.kill(worker.pid, signal.SIGTERM)
            signalled.append(worker.pid)
        return result

    monkeypatch.setattr(train, "train_step", step)
    run(workspace, "r/m.safetensors", "data.num_workers=1", "training.batch_size=1", "training.num_epochs=1")
    assert signalled


def test_the_handlers_are_put_back(workspace):
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    run(workspace, "r/m.safetensors", strategy="none")
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


def test_a_signal_is_noted_and_asked_for():
    with StopRequests() as stop:
        stop.check("never")
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        with pytest.raises(StoppedError, match="stopped by a signal here; resume with --resume"):
            stop.check("here")


def test_at_once_does_not_wait_for_the_end_of_the_block():
    reached = []

    def signalled():
        os.kill(os.getpid(), signal.SIGTERM)
        reached.append("the line after the signal")

    with pytest.raises(StoppedError, match="while reading"), StopRequests() as stop, stop.at_once("while reading"):
        signalled()
    assert not reached


def test_at_once_takes_what_a_signal_led_to_for_the_signal():
    def library_that_catches_all():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Exception as error:
            raise ValueError("damaged file") from error

    def library_that_swallows_all():
        with suppress(Exception):
            os.kill(os.getpid(), signal.SIGTERM)

    for library in (library_that_catches_all, library_that_swallows_all):
        with pytest.raises(StoppedError, match="while reading"), StopRequests() as stop, stop.at_once("while reading"):
            library()
    with pytest.raises(ValueError, match="its own"), StopRequests() as stop, stop.at_once("while reading"):
        raise ValueError("its own")


SECOND = """
import os, signal, sys, time
from training.signals import ONE_REQUEST_SECONDS, StopRequests
signal.signal(signal.SIGINT, signal.{2})
with StopRequests() as stop:
    os.kill(os.getpid(), signal.{0})
    print("noted", flush=True)
    time.sleep(ONE_REQUEST_SECONDS)
    os.kill(os.getpid(), signal.{1})
    print("too late", flush=True)
"""


@pytest.mark.parametrize("ctrl_c", ["default_int_handler", "SIG_IGN"])  # the latter: a job in a shell's background
@pytest.mark.parametrize(("first", "second"), [("SIGUSR1", "SIGTERM"), ("SIGTERM", "SIGTERM"), ("SIGINT", "SIGINT")])
def test_a_second_signal_stops_at_once(first, second, ctrl_c):
    code = SECOND.format(first, second, ctrl_c)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "noted\n"
    assert done.returncode == -getattr(signal, second)


def test_signals_that_come_together_are_one_request():
    """A cluster signals every process of a job, and the parent of this one hands its own on."""
    with StopRequests() as stop:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested


def signal_itself(_):
    for number in STOP_SIGNALS:
        os.kill(os.getpid(), number)


def test_signals_while_workers_start_leave_them_alive():
    loader = torch.utils.data.DataLoader(range(4), batch_size=2, num_workers=2, worker_init_fn=signal_itself)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert [batch.tolist() for batch in start_workers(loader)] == [[0, 1], [2, 3]]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_a_signal_to_the_whole_job_finishes_the_step_and_exits_3(workspace):
    """The real command; clusters signal every process of a job, the data loader's workers too."""
    overrides = ["training.num_epochs=500", "data.num_workers=2"]
    arguments = workspace.train_arguments("r/m.safetensors", "--set", *overrides)
    process = subprocess.Popen(
        [sys.executable, "main.py", *arguments],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    metrics = workspace.folder / "r" / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not (metrics.exists() and len(read_metrics(metrics)) >= 2):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGTERM)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 3, stderr
    assert "stopped by a signal" in stderr.splitlines()[-1]
    states = StateFolder(Path(workspace.folder / "r" / "last"))
    assert states.read(states.newest())["progress"]["epoch"] == len(read_metrics(metrics)) >= 2
    assert not (workspace.folder / "r" / "results.json").exists()
    recorded = json.loads((workspace.folder / "r" / "environment.json").read_text())["packages"]
    assert torch.__version__.startswith(recorded["torch"])
    assert recorded["accelerate"]
