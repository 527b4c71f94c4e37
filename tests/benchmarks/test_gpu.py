"""benchmarks/gpu.py without a GPU: what it says there, and those of its parts that a CPU can run."""

import ast
import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_tables import gpu_tables

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_succeeds(tmp_path):
    command = [sys.executable, "benchmarks/gpu.py", "--output", str(tmp_path / "bench")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(gpu.__file__).parents[1])
    assert (done.returncode, done.stdout) == (0, "benchmarks/gpu.py: no CUDA GPU found, nothing measured\n")
    assert not (tmp_path / "bench").exists()


def test_a_failing_or_late_part_is_recorded():
    def fail():
        raise ValueError("no kernel\nand more")

    end = time.monotonic() + 60
    assert gpu.attempt(end, lambda: {"ms": 1}) == {"ms": 1}
    assert gpu.attempt(end, fail) == {"error": "ValueError: no kernel"}
    assert gpu.attempt(end - 120, fail) == {"error": "not started: no time left"}
    assert "not JSON compliant" in gpu.attempt(end, lambda: {"ms": 1.0, "losses": [math.nan]})["error"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradients_are_compared_with_those_in_float32_on_the_cpu(precision):
    found = gpu.compare_gradients(precision, CPU)
    assert found["passed"]
    assert (found["relative_difference"] == 0) == (precision == "fp32")


def test_a_single_process_trains_through_torch_distributed():
    """As with nccl; here through gloo, which is why it says not passed."""
    code = "import torch; from benchmarks.gpu import distributed_steps as run; print(run(torch.device('cpu')))"
    environment = {**os.environ, **gpu.ONE_PROCESS, "MASTER_PORT": "29519"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found = ast.literal_eval(done.stdout.splitlines()[-1])
    assert (found["backend"], found["passed"]) == ("gloo", False)
    assert found["losses"][1] != found["losses"][0] > 0


def test_a_step_trains():
    step = gpu.training_step(replace(gpu.NANO, img_size=64, precision="bf16", gradient_checkpointing=True), CPU)
    first, *_, last = [step() for _ in range(5)]
    assert last < first


def test_the_table_has_a_line_for_each_step_and_check():
    case = {"precision": "bf16", "compile": False, "gradient_checkpointing": True}
    measured = {"ms": 12.34, "images_per_second": 400.0, "peak_mib": 2000.4, "estimated_mib": 1900.0}
    record = {
        "environment": {"device_name": "A GPU", "packages": {"torch": "2.11"}, "cuda": "12.8"},
        "steps": [{**case, **measured}, {**case, "error": "OutOfMemoryError: a|b"}],
        "numerics": {"fp32": {"relative_difference": 0.001, "passed": True}},
        "nccl": {"error": "no nccl"},
        "nano run": {"scores": ["last"], "passed": True},
    }
    lines = gpu_tables(record, 512, 5).splitlines()
    assert lines[0] == "A GPU, torch 2.11, CUDA 12.8: SALT-256 on ViT-B, 512 x 512, batch 5."
    assert "| bf16 | no | yes | 12.3 | 400.0 | 2000 | 1900 |" in lines
    assert "| bf16 | no | yes | OutOfMemoryError: a/b |  |  |  |" in lines
    assert '| gradients in fp32 beside the CPU\'s | passed: {"relative_difference": 0.001} |' in lines
    assert "| one nccl process | FAILED: no nccl |" in lines
    assert '| nano run in bf16 | passed: {"scores": ["last"]} |' in lines
