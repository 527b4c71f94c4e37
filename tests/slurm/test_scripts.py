"""slurm/common.sh without Slurm: when a job is requeued, and which signals the command receives."""

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
    """Run a command with run_or_requeue; return the exit status and the arguments of scontrol."""
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


def test_a_command_that_saves_at_the_warning_is_requeued(job):
    command = COMMAND.format(wait=True, count=False, status=3)
    assert job(command, signal.SIGUSR1) == (3, "requeue 7\n")


def test_a_command_that_succeeds_despite_the_warning_is_not_requeued(job):
    assert job(COMMAND.format(wait=True, count=False, status=0), signal.SIGUSR1) == (0, "")


def test_a_command_that_fails_without_a_warning_is_not_requeued(job):
    assert job(COMMAND.format(wait=False, count=False, status=1)) == (1, "")


def test_a_cancellation_reaches_the_command_once_and_is_final(job):
    """scancel signals the whole job; if the script forwarded it, the command would receive a second signal."""
    assert job(COMMAND.format(wait=True, count=True, status=0), signal.SIGTERM, group=True) == (1, "")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_script_requests_a_warning_and_requeueing(script):
    text = script.read_text()
    subprocess.run(["bash", "-n", str(script)], check=True)
    options = set(re.findall(r"^#SBATCH (.*)$", text, re.MULTILINE))
    assert {"--requeue", "--signal=B:USR1@120", "--open-mode=append"} <= options
    assert ("--gpus-per-node=2" if script.stem == "multi_gpu" else "--gres=gpu:1") in options
    assert "run_or_requeue" in text


@pytest.fixture
def submit(tmp_path):
    """Run slurm/sweep.sbatch outside a job; return the finished process and the arguments of sbatch."""
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


def test_a_sweep_is_submitted_with_one_task_per_run(submit):
    plan = "configs/table1/sweep.yaml"
    done, submitted = submit(plan, "--partition=gpu", "--time=12:00:00")
    assert done.returncode == 0, done.stderr
    assert submitted == ["--array=0-224", "--partition=gpu", "--time=12:00:00", "slurm/sweep.sbatch", plan]


def test_a_plan_without_runs_is_not_submitted(submit, tmp_path):
    done, submitted = submit(tmp_path / "absent.yaml")
    assert (done.returncode, submitted) == (2, None)
    assert done.stderr.strip().splitlines()[-1] == f"error: {tmp_path / 'absent.yaml'}: no runs"
