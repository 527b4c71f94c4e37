"""slurm/common.sh without a Slurm: when a job is queued again, and what the command hears."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "slurm").glob("*.sbatch"))

COMMAND = """
import signal, sys, time
asked = []
for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, lambda *_: asked.append(1))
open(sys.argv[1], "w").close()
while {wait} and not asked:
    time.sleep(0.05)
time.sleep(0.3)
sys.exit(len(asked) if {count} else {status})
"""


@pytest.fixture
def job(tmp_path):
    """Runs a command by run_or_requeue; returns the exit status and whether the job was queued again."""
    requeue = tmp_path / "scontrol"
    requeue.write_text(f'#!/bin/bash\necho "$@" >> {tmp_path}/requeued\n')
    requeue.chmod(0o755)

    def run(command, number=None, group=False):
        ready = tmp_path / "ready"
        ready.unlink(missing_ok=True)
        (tmp_path / "command.py").write_text(command)
        line = f"source slurm/common.sh; run_or_requeue {sys.executable} {tmp_path}/command.py {ready}"
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
        process = subprocess.Popen(["bash", "-c", line], cwd=ROOT, env=environment, start_new_session=True)
        while number and not ready.exists():
            assert process.poll() is None
            time.sleep(0.05)
        if number:
            (os.killpg if group else os.kill)(process.pid, number)
        status = process.wait(60)
        requeued = tmp_path / "requeued"
        return status, requeued.read_text() if requeued.exists() else ""

    return run


def test_a_command_that_saves_at_the_warning_is_queued_again(job):
    command = COMMAND.format(wait=True, count=False, status=3)
    assert job(command, signal.SIGUSR1) == (3, "requeue 7\n")


def test_a_command_that_ends_well_in_spite_of_the_warning_is_not(job):
    assert job(COMMAND.format(wait=True, count=False, status=0), signal.SIGUSR1) == (0, "")


def test_a_command_that_fails_is_not(job):
    assert job(COMMAND.format(wait=False, count=False, status=1)) == (1, "")


def test_a_cancellation_reaches_the_command_once_and_is_final(job):
    """scancel signals the whole job: were the script to pass it on, it would be the command's second signal."""
    assert job(COMMAND.format(wait=True, count=True, status=0), signal.SIGTERM, group=True) == (1, "")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_script_asks_to_be_warned_and_requeued(script):
    text = script.read_text()
    subprocess.run(["bash", "-n", str(script)], check=True)
    options = set(re.findall(r"^#SBATCH (.*)$", text, re.MULTILINE))
    assert {"--requeue", "--signal=B:USR1@120", "--open-mode=append"} <= options
    assert ("--gpus-per-node=2" if script.stem == "multi_gpu" else "--gres=gpu:1") in options
    assert "run_or_requeue" in text


@pytest.fixture
def submit(tmp_path):
    """Runs slurm/sweep.sbatch outside of a job; returns the finished process and what it gave to sbatch."""
    sbatch = tmp_path / "sbatch"
    sbatch.write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" > {tmp_path}/submitted\n')
    sbatch.chmod(0o755)

    def run(plan, *options):
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SALT_PYTHON": sys.executable}
        command = ["bash", "slurm/sweep.sbatch", str(plan), *options]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        submitted = tmp_path / "submitted"
        return done, submitted.read_text().splitlines() if submitted.exists() else None

    return run


def test_a_sweep_is_submitted_as_one_task_a_cell(submit):
    plan = "configs/table1/sweep.yaml"
    done, submitted = submit(plan, "--partition=gpu", "--time=12:00:00")
    assert done.returncode == 0, done.stderr
    assert submitted == ["--array=0-224", "--partition=gpu", "--time=12:00:00", "slurm/sweep.sbatch", plan]


def test_a_plan_without_cells_is_not_submitted(submit, tmp_path):
    done, submitted = submit(tmp_path / "absent.yaml")
    assert (done.returncode, submitted) == (2, None)
    assert done.stderr.strip().splitlines()[-1] == f"error: {tmp_path / 'absent.yaml'}: no cells"
