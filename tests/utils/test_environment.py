"""What a run says of its machine."""

import json
import os
import resource
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from utils import environment
from utils.environment import environment_info, peak_memory_bytes

CPU = torch.device("cpu")
KEYS = {"python", "packages", "platform", "cpu_count", "device", "device_name", "cuda", "git", "command"}


@pytest.fixture
def repository(tmp_path):
    """An empty git checkout with one commit, apart from whatever git the tests themselves run in."""
    if shutil.which("git") is None:
        pytest.skip("no git")
    outside = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    folder = tmp_path.resolve() / "checkout"
    folder.mkdir()
    for arguments in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "--no-gpg-sign", "-m", "first"],
    ):
        subprocess.run(["git", "-C", str(folder), *arguments], check=True, env=outside, capture_output=True)
    return folder


def test_the_keys_and_what_they_hold(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["main.py", "--set", "a b=1"])
    monkeypatch.setattr(sys, "executable", "/some/where/python3")
    info = environment_info(CPU)
    assert set(info) == KEYS
    assert info["python"] == ".".join(map(str, sys.version_info[:3]))
    assert info["packages"]["torch"] == torch.__version__
    assert info["packages"]["numpy"] == np.__version__
    assert info["packages"]["segment_anything"] is not None
    assert info["device"] == "cpu"
    assert info["device_name"]
    assert info["cuda"] is None
    assert 1 <= info["cpu_count"] <= os.cpu_count()
    assert info["command"] == "python3 main.py --set 'a b=1'"
    assert json.loads(json.dumps(info)) == info


def test_a_package_that_is_not_there_is_none(monkeypatch):
    monkeypatch.setattr(environment, "PACKAGES", ("torch", "no-such-package-here"))
    assert environment_info(CPU)["packages"] == {"torch": torch.__version__, "no-such-package-here": None}


def test_environment_variables_stay_out(monkeypatch):
    monkeypatch.setenv("UNUSUAL_TOKEN", "s3cret-value-7391")
    text = json.dumps(environment_info(CPU))
    assert "UNUSUAL_TOKEN" not in text
    assert "s3cret-value-7391" not in text


def test_git_says_commit_and_whether_files_changed(repository, monkeypatch):
    monkeypatch.setattr(environment, "PROJECT_ROOT", repository)
    head = environment_info(CPU)["git"]
    assert len(head["commit"]) == 40
    assert head["dirty"] is False
    (repository / "new.txt").write_text("x")
    assert environment_info(CPU)["git"] == {"commit": head["commit"], "dirty": True}


def test_a_copy_inside_anothers_checkout_has_no_commit(repository, monkeypatch):
    (repository / "unpacked").mkdir()
    monkeypatch.setattr(environment, "PROJECT_ROOT", repository / "unpacked")
    assert environment_info(CPU)["git"] is None


def test_a_folder_without_git_has_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "PROJECT_ROOT", tmp_path.resolve())
    assert environment_info(CPU)["git"] is None
    monkeypatch.setenv("PATH", str(tmp_path))  # no git program at all
    assert environment_info(CPU)["git"] is None


def test_peak_memory_is_in_bytes_and_stays_after_the_peak():
    """In a process of its own: another test's peak may be higher than anything that this one could add."""
    code = """if True:
        import numpy as np, torch
        from utils.environment import peak_memory_bytes
        cpu = torch.device("cpu")
        before = peak_memory_bytes(cpu)
        block = np.ones(512 << 20, np.uint8)
        grown = peak_memory_bytes(cpu)
        del block
        print(before, grown, peak_memory_bytes(cpu))
    """
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=environment.PROJECT_ROOT, capture_output=True, text=True, check=True
    )
    before, grown, after = map(int, done.stdout.split())
    assert 1e7 < before < 4e9
    assert grown - before == pytest.approx(512 << 20, rel=0.25)
    assert after >= grown - (1 << 20)  # the kernel counts pages a little late


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="Linux tells the peak there")
def test_peak_memory_is_not_that_of_the_parent(monkeypatch):
    # What ru_maxrss says in a process that a larger one started.
    monkeypatch.setattr(resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=1 << 40))
    assert peak_memory_bytes(CPU) < 1 << 40


@pytest.mark.parametrize(("system", "unit"), [("linux", 1024), ("darwin", 1)])
def test_peak_memory_where_there_is_no_proc(monkeypatch, system, unit):
    monkeypatch.setattr(environment, "_first_value", lambda *_: None)
    monkeypatch.setattr(resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=1000))
    monkeypatch.setattr(sys, "platform", system)
    assert peak_memory_bytes(CPU) == 1000 * unit
