"""Timing in turns, in processes of their own, and the statistics of it."""

import itertools
import multiprocessing
import os
from functools import partial

import pytest

from benchmarks.timing import Comparison, in_own_process, interleaved, markdown


def test_ways_take_turns_and_only_counted_rounds_are_timed():
    order, ticks = [], itertools.count()
    ways = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    seconds = interleaved(ways, rounds=2, warmup=1, clock=lambda: next(ticks))
    assert "".join(order) == "ba" + "ab" + "ba"
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
        pytest.raises(ChildProcessError, match="the process of a benchmark ended"),
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
