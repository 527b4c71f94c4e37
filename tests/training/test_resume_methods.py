"""A method of each kind, stopped and resumed by the real command, ends with the bits of a run that nothing stopped."""

import subprocess
import sys
from pathlib import Path

import pytest
from short_runs import assert_same_runs

from main import main

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("method", ["kasa", "dora", "pissa", "adaptformer"])
def test_two_and_one_epochs_equal_three_to_the_bit(workspace, method):
    """KaSA: a decomposition, random numbers beside a start of zero, dropout and a regularizer."""
    workspace.model_config.write_text(workspace.model_config.read_text().replace(", weights: random", ""))
    base = ["--pretrained_path", str(ROOT / "weights" / "nano_sam.safetensors"), "--training_strategy", method]

    def train(save, epochs, *more):
        options = workspace.train_arguments(f"{save}/m.safetensors", *base, *more)
        options += ["--set", f"training.num_epochs={epochs}"]
        if "--resume" in more:  # in a process that remembers nothing
            subprocess.run([sys.executable, "main.py", *options], cwd=ROOT, check=True)
        else:
            assert main(options) == 0

    train("whole", 3)
    train("cut", 2)
    train("cut", 3, "--resume")
    assert_same_runs(workspace.folder / "whole", workspace.folder / "cut")
