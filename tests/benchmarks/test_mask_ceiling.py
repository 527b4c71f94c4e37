"""The ceiling of a resolution: 1 where nothing is lost, and lower the coarser the logits are."""

import sys

import numpy as np
import pytest

from benchmarks import mask_ceiling


def thin_lines() -> np.ndarray:
    truth = np.zeros((64, 56), bool)
    truth[10, 5:50] = truth[12, 5:50] = True
    truth[np.arange(20, 50), np.arange(5, 35)] = True
    return truth


def test_finer_logits_reach_more():
    found = [mask_ceiling.ceiling(thin_lines(), 64, stride) for stride in (4, 2, 1)]
    assert found == sorted(found)
    assert found[0] < 0.9
    assert found[2] == pytest.approx(1)
    assert mask_ceiling.ceiling(thin_lines(), 32, 1) < 1


def test_the_command_writes_the_table(workspace, tmp_path, monkeypatch, capsys):
    arguments = ["--data_config", str(workspace.data_config), "--sizes", "32", "64", "--strides", "4", "1"]
    monkeypatch.setattr(sys, "argv", ["mask_ceiling", *arguments, "--output", str(tmp_path)])
    mask_ceiling.main()
    table = (tmp_path / "mask_ceiling.md").read_text()
    assert table in capsys.readouterr().out
    assert table.startswith("| image size | stride 4 | stride 1 |")
    assert (tmp_path / "mask_ceiling.json").is_file()
