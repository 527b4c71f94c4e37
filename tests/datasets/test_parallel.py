"""parallel_map returns and raises what a loop would."""

import os
import signal
import time
from pathlib import Path

import pytest

from datasets import parallel
from datasets.parallel import parallel_map
from utils.errors import ConfigError, UserError
from utils.pools import usable_cores


@pytest.fixture(autouse=True, params=[1, 3], ids=["one core", "three cores"])
def some_cores(request, monkeypatch):
    monkeypatch.setattr(parallel, "usable_cores", lambda: request.param)
    return request.param


def square(number):
    if number < 0:
        raise ConfigError(f"{number}.png: negative")
    return number * number


def mark(path: Path):
    path.write_bytes(b"")
    if path.name == "00":
        raise UserError("00: broken")
    time.sleep(0.01)


def killed(_):
    os.kill(os.getpid(), signal.SIGKILL)


def process(_):
    time.sleep(0.05)
    return os.getpid()


def test_results_come_in_order():
    assert parallel_map(square, range(100), "test") == [n * n for n in range(100)]
    assert parallel_map(square, [], "test") == []


def test_several_processes_work(some_cores):
    found = set(parallel_map(process, range(12), "test"))
    assert (os.getpid() in found) == (some_cores == 1)
    assert len(found) == some_cores


def test_the_first_error_is_the_one_of_the_first_item():
    with pytest.raises(ConfigError) as caught:
        parallel_map(square, [1, -2, 3, -4], "test")
    assert str(caught.value) == "-2.png: negative"


def test_an_error_cancels_pending_items(tmp_path):
    paths = [tmp_path / f"{number:02d}" for number in range(99)]
    with pytest.raises(UserError, match="00: broken"):
        parallel_map(mark, paths, "test")
    assert len(list(tmp_path.iterdir())) < 99


def test_an_interrupt_cancels_pending_items(tmp_path, monkeypatch):
    """Ctrl-C between two results."""

    def interrupted(results, **_):
        next(iter(results))
        raise KeyboardInterrupt

    monkeypatch.setattr(parallel, "tqdm", interrupted)
    paths = [tmp_path / f"{number:02d}" for number in range(1, 99)]
    with pytest.raises(KeyboardInterrupt):
        parallel_map(mark, paths, "test")
    assert len(list(tmp_path.iterdir())) < 98


def test_a_killed_worker_is_one_line(some_cores):
    if some_cores == 1:
        return  # there is no worker
    with pytest.raises(UserError, match="test: a worker process was killed"):
        parallel_map(killed, range(4), "test")


def test_all_cores_are_counted():
    assert 1 <= usable_cores() <= os.cpu_count()
