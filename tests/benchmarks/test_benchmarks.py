"""The benchmarks' commands at tiny sizes: what they write, never how long it took; and that the ways compared agree."""

import itertools
import json
import multiprocessing
import os
import subprocess
import sys
from functools import partial

import pytest
import torch

from benchmarks.data import draw_set
from benchmarks.plain_data import PlainDataset
from benchmarks.timing import Comparison, in_own_process, interleaved, markdown
from datasets.data import GeneralDataset
from utils.config import load_config

TINY = {
    "data": ["--img_size", "32", "--count", "2", "--size", "70", "66"],
}
WAYS = {"data": {"plain", "ours, decoded each time", "ours"}}


@pytest.mark.parametrize("name", TINY)
def test_a_benchmark_prints_and_writes_a_table_and_json(name, tmp_path):
    command = [sys.executable, "-m", f"benchmarks.{name}", "--rounds", "2", "--output", str(tmp_path), *TINY[name]]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    table, record = (tmp_path / f"{name}.md").read_text(), json.loads((tmp_path / f"{name}.json").read_text())
    assert done.stdout.startswith(table)
    assert json.loads(done.stdout.splitlines()[-1]) == record
    assert (record["benchmark"], record["threads"]) == (name, 1)
    assert table.count("\n") == 2 + len(record["comparisons"]) * len(WAYS[name])
    for comparison in record["comparisons"]:
        assert comparison["rounds"] == 2
        assert set(comparison["ways"]) == WAYS[name]
        assert comparison["ways"][comparison["baseline"]]["times_faster"] == 1
        for way in comparison["ways"].values():
            low, high = way["ms_range"]
            assert 0 <= low <= way["ms"] <= high


def test_the_plain_pipeline_gives_our_samples(tmp_path):
    """But for the plain one's rounding while it resizes in 8 bits, up to one level, brightened by up to 1.2."""
    draw_set(tmp_path, 2, (90, 84))
    overrides = [f"data.root_path={tmp_path}", "data_transforms.img_size=64"]
    config = load_config(None, "configs/data/drive.yaml", overrides)
    ours = GeneralDataset(config, "train", train=True)
    plain = PlainDataset([(s.image_path, s.mask_path) for s in ours.samples], config.data_transforms)
    states = []
    finish = ours.transform.finish
    ours.transform.finish = lambda *pair: (states.append(torch.get_rng_state()), finish(*pair))[1]
    for index in range(2):
        sample = ours[index]
        torch.set_rng_state(states[-1])
        image, mask = plain[index]
        assert torch.equal(sample["mask"], mask)
        assert (sample["image"] - image).abs().max() < 1.2 / min(config.data_transforms.pixel_std) + 1e-4


def test_ways_take_turns_and_only_counted_rounds_are_timed():
    order, ticks = [], itertools.count()
    ways = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    seconds = interleaved(ways, rounds=2, warmup=1, clock=lambda: next(ticks), synchronize=lambda: order.append("."))
    assert "".join(order) == ".b..a." + ".a..b." + ".b..a."
    assert seconds == {"a": [1, 1], "b": [1, 1]}


def noting_way(path, failing=False):
    """Notes, at each run, the process that it runs in."""

    def run():
        if failing:
            raise ValueError("out of paper")
        with path.open("a") as file:
            file.write(f"{os.getpid()} ")

    return run


def test_a_way_runs_in_one_process_of_its_own(tmp_path):
    with (
        in_own_process(partial(noting_way, tmp_path / "first")) as first,
        in_own_process(partial(noting_way, tmp_path / "second")) as second,
    ):
        interleaved({"first": first, "second": second}, rounds=2, warmup=1)
    noted = [(tmp_path / name).read_text().split() for name in ("first", "second")]
    assert [len(each) for each in noted] == [3, 3]
    assert len({*noted[0], *noted[1], str(os.getpid())}) == 3
    assert multiprocessing.active_children() == []


def noting_variable(path):
    path.write_text(os.environ["SALT_TEST_VARIABLE"])
    return lambda: None


@pytest.mark.parametrize("before", ["outside", None])
def test_a_way_has_the_variables_given_and_this_process_keeps_its_own(before, tmp_path, monkeypatch):
    monkeypatch.delenv("SALT_TEST_VARIABLE", raising=False)
    if before:
        monkeypatch.setenv("SALT_TEST_VARIABLE", before)
    with in_own_process(partial(noting_variable, tmp_path / "seen"), {"SALT_TEST_VARIABLE": "inside"}) as way:
        way()
    assert (tmp_path / "seen").read_text() == "inside"
    assert os.environ.get("SALT_TEST_VARIABLE") == before


def test_a_failing_way_is_an_error(tmp_path, capfd):
    with (
        pytest.raises(ChildProcessError, match="the process of a way ended"),
        in_own_process(partial(noting_way, tmp_path / "none", failing=True)) as way,
    ):
        way()
    assert "out of paper" in capfd.readouterr().err


def test_medians_and_ratios_are_of_the_rounds():
    comparison = Comparison("x", {"slow": [4.0, 8.0, 40.0], "fast": [1.0, 2.0, 20.0]}, "slow", items=2, notes={"n": 3})
    record = comparison.record()
    assert record["ways"]["slow"] == {"ms": 4e3, "ms_range": [2e3, 20e3], "per_second": 0.25, "times_faster": 1.0}
    assert record["ways"]["fast"]["times_faster"] == 4.0  # of 4, 4 and 2
    assert (record["case"], record["baseline"], record["rounds"], record["n"]) == ("x", "slow", 3, 3)
    assert markdown([comparison]).splitlines()[-1] == "| x | fast | 1000.00 | 1.0 | 4.00 |"
