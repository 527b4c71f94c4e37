"""Runs of the test workspace: in this process, interrupted at a given moment, or in processes of their own."""

import multiprocessing
import os
import random
import signal
import socket
from pathlib import Path

import numpy as np
import pytest
import torch

import train
from checkpointing.weights_file import read_weights
from experiments.experiment import train_and_evaluate
from training.run_log import read_metrics
from training.signals import StoppedError
from utils.config import load_config

ROOT = Path(__file__).resolve().parents[1]

# What long runs are tested with: a name, and the overrides that make the workspace's model config that model.
MODELS = {"nano SAM": (), "nano SAM2": ("arch=Prompt Adapted SAM 2", "ft.svd_ratio=0.2")}


def config_of(workspace, *overrides, strategy="lora"):
    return load_config(workspace.model_config, workspace.data_config, overrides, strategy)


def run(workspace, save, *overrides, strategy="lora", resume=False):
    """A run in this process; its results."""
    config = config_of(workspace, *overrides, strategy=strategy)
    return train_and_evaluate(config, workspace.folder / save, torch.device("cpu"), resume)


def interrupted_then_resumed(workspace, name, *overrides, strategy="lora"):
    """A run that something stops, and its second half after the generators have gone astray."""
    with pytest.raises(StoppedError, match="stopped by a signal"):
        run(workspace, name, *overrides, strategy=strategy)
    for generator in (torch.manual_seed, np.random.seed, random.seed):
        generator(1234)
    return run(workspace, name, *overrides, strategy=strategy, resume=True)


def signal_at_call(monkeypatch, module, name, count, number=signal.SIGUSR1):
    """Sends this process a signal when `module.name` is called for the `count`-th time; later calls are as ever."""
    original = getattr(module, name)
    calls = iter(range(1, 10**9))

    def called(*arguments, **options):
        if next(calls) == count:
            os.kill(os.getpid(), number)
        return original(*arguments, **options)

    monkeypatch.setattr(module, name, called)


def signal_at_step(monkeypatch, step, number=signal.SIGUSR1):
    """Sends this process a signal during the `step`-th optimizer step from now."""
    signal_at_call(monkeypatch, train, "train_step", step, number)


def records(folder):
    """The lines of metrics.jsonl, without the seconds."""
    lines = read_metrics(folder / "metrics.jsonl")
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def assert_same_runs(first, second, weights="m.safetensors"):
    """Final weights, best weights and records of two run folders are equal to the bit."""
    for name in (weights, "best_val.safetensors"):
        one, two = (read_weights(folder / name) for folder in (first, second))
        assert one.metadata["epoch"] == two.metadata["epoch"]
        assert set(one.tensors) == set(two.tensors)
        different = [key for key in one.tensors if not torch.equal(one.tensors[key], two.tensors[key])]
        assert not different
    assert records(first) == records(second)


def all_differences(first, second, weights="m.safetensors"):
    """The absolute differences of all final weights of two run folders, in one row."""
    one, two = (read_weights(folder / weights).tensors for folder in (first, second))
    assert set(one) == set(two)
    return torch.cat([(one[key].double() - two[key].double()).abs().flatten() for key in one])


def largest_difference(first, second, weights="m.safetensors"):
    """The largest difference between the final weights of two run folders."""
    return float(all_differences(first, second, weights).max())


# A child of the fork server has all that a run imports already, and none of this process' threads. The server finds
# what lies in the folder where the tests were started, the project's root; this file it would not find.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["experiments.experiment", "prompt_adapted_SAM2.model", "torch.utils.tensorboard", "matplotlib.figure"]
)


def start(target, *arguments, environment=None):
    """Starts `target(*arguments)` in a new process with one thread."""
    process = _context.Process(target=_work, args=(target, arguments, environment or {}))
    process.start()
    return process


def start_group(count, target, *arguments):
    """Starts `count` processes with the variables that torchrun sets."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environments = [{**common, "RANK": i, "LOCAL_RANK": i, "OMP_NUM_THREADS": 1} for i in range(count)]
    return [start(target, *arguments, environment=environment) for environment in environments]


def exit_codes(processes, timeout=240):
    """Waits for processes to end; one that does not is killed, and its code is None."""
    codes = []
    for process in processes:
        process.join(timeout)
        codes.append(process.exitcode)
        process.kill()
    return codes


def _work(target, arguments, environment):
    os.environ.update({key: str(value) for key, value in environment.items()})
    os.chdir(ROOT)
    # As from the command line; a child of the fork server would start its data loader's workers by a server of its own.
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(1)
    os._exit(target(*arguments) or 0)
