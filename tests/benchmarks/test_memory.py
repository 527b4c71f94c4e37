"""The estimate of a training step's memory: what it counts, which way options move it, and a real step beside it."""

from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.memory import CHECK, Step, check, estimate, table
from benchmarks.peak_memory import LiveBytes

NANO = Step("Prompt Adapted SAM", "nano", 256, "lora")


def test_live_bytes_are_counted_once_and_until_they_are_freed():
    with FakeTensorMode(), LiveBytes() as live:
        a = torch.empty(1000)
        b = a.view(10, 100)  # the same storage
        assert live.now == 4000
        c = torch.empty(500, dtype=torch.float64)
        assert live.now == live.peak == 8000
        del c
        assert live.now == 4000
        del a, b
    assert (live.now, live.peak) == (0, 8000)


@pytest.mark.slow
def test_options_move_the_peak_the_way_they_should():
    plain = estimate(NANO)
    assert plain["peak"] > plain["parameters"] > 0
    assert estimate(replace(NANO, gradient_checkpointing=True))["peak"] < 0.8 * plain["peak"]
    assert estimate(replace(NANO, precision="bf16"))["peak"] < plain["peak"]
    assert estimate(replace(NANO, batch_size=2))["peak"] > 1.5 * plain["peak"]
    assert estimate(replace(NANO, strategy="decoder"))["peak"] < plain["peak"]


def test_the_table_has_a_column_for_each_option():
    rows = [{**vars(NANO), "parameters": 2**30, "peak": 2**31}]
    assert table(rows).splitlines()[-1] == "| Prompt Adapted SAM nano | 256 | lora | 1.0 | 2.0 | - | - | - |"


@pytest.mark.slow
def test_the_estimate_of_vit_b_is_near_a_real_step_on_the_cpu():
    assert CHECK[1:3] == ("base", 512)
    ratios = [float(line.rpartition(" ")[2]) for line in check().splitlines()]
    assert all(0.8 < ratio < 1.2 for ratio in ratios), ratios
