"""`prepare` that is stopped or killed: no worker lives on, the next one cleans up, and the old set is not lost."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lock_holder import held

from main import main

ROOT = Path(__file__).resolve().parents[3]
# Two workers on any machine; their second image takes for ever.
SLOW = """import os, sys, time
from datasets import parallel
from datasets.preparation import writer
parallel.usable_cores = lambda: 2
original = writer._write_case
def write(root, case):
    if case.name.endswith("3.png"):
        (root.parent / f"worker_{os.getpid()}").touch()
        time.sleep(600)
    original(root, case)
writer._write_case = write
from main import main
sys.exit(main(sys.argv[1:]))
"""


def arguments(output, *more):
    return ["prepare", "synthetic", "--count", "8", "--size", "64", "--output", str(output), *more]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def _heed_signals():
    """Undoes `nohup` and `&`, under which these tests may run and which make processes ignore signals."""
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture
def working(tmp_path):
    """A `prepare` whose workers never end: the process and the process ids of its workers."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, *arguments(tmp_path / "set")],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_heed_signals,
    )
    scratch = tmp_path / ".set.prepare"
    while not (found := list(scratch.glob("worker_*"))):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert found[0].name.removeprefix("worker_") in children
    yield process, [int(child) for child in children]
    process.kill()
    process.communicate()


def wait_for_end(workers):
    for _ in range(200):
        living = [pid for pid in workers if _lives(pid)]
        if not living:
            return
        time.sleep(0.05)
    raise AssertionError(f"{living} live on")


def _lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="processes are read from /proc")
def test_after_kill_9_no_worker_lives_on_and_the_next_prepare_cleans_up(working, tmp_path, caplog):
    process, workers = working
    process.kill()
    process.wait()
    wait_for_end(workers)
    assert ".set.prepare" in names(tmp_path)
    assert main(arguments(tmp_path / "set")) == 0
    assert ".set.prepare: removed; a prepare that was killed had left it" in caplog.text
    assert names(tmp_path) == ["set"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_ends_prepare_and_its_workers_and_leaves_nothing(working, tmp_path, number):
    process, workers = working
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 3, error
    assert error.strip().splitlines()[-1].startswith("error: stopped by ")
    wait_for_end(workers)
    assert names(tmp_path) == []


def test_a_kill_between_the_two_renames_loses_no_set(tmp_path, caplog):
    assert main(arguments(tmp_path / "set")) == 0
    before = (tmp_path / "set" / "images" / "synthetic_000.png").exists(), names(tmp_path / "set" / "images")
    scratch = tmp_path / ".set.prepare"
    (scratch / "new").mkdir(parents=True)
    (tmp_path / "set").rename(scratch / "former")
    assert main(arguments(tmp_path / "set")) == 1  # it is back, and not replaced without --force
    assert f"set: is back; a prepare that was killed had moved it to {scratch / 'former'}" in caplog.text
    assert before == ((tmp_path / "set" / "images" / "synthetic_000.png").exists(), names(tmp_path / "set" / "images"))
    assert names(tmp_path) == ["set"]


def test_two_at_once_are_refused(tmp_path, capsys):
    with held(tmp_path / ".set.lock"):
        assert main(arguments(tmp_path / "set")) == 1
        assert "set: another process prepares it; wait for it, or choose another folder" in capsys.readouterr().err
        assert names(tmp_path) == [".set.lock"]
