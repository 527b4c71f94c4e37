"""What the detail head's inputs are worth: a row of training for each input that it does without."""

import pytest
import torch

from benchmarks import head_parts
from model import load_trained
from networks.detail_head import DetailHead


@pytest.mark.parametrize("name", [name for name in head_parts.WITHOUT if name != head_parts.OFFICIAL])
def test_a_row_does_without_what_it_names(name):
    torch.manual_seed(0)
    head = DetailHead(8)
    torch.nn.init.normal_(head.correction.weight)
    inputs = [torch.randn(1, 16, 32, 32), torch.randn(1, 32, 16, 16), torch.randn(1, 8, 16, 16), torch.randn(1, 16, 16)]
    for value in inputs:
        value.requires_grad_()
    fine, coarse, features, logits = inputs
    with head_parts.without(head_parts.WITHOUT[name]):
        head((fine, coarse), features, logits).sum().backward()
    used = [bool(value.grad is not None and value.grad.any()) for value in inputs]
    assert used == [i not in head_parts.WITHOUT[name] for i in range(4)]


def test_the_command_trains_once_and_writes_the_table(workspace, tmp_path, no_pictures, capsys):
    rows = ["--inputs", "no head", "no image", "--seeds", "0"]
    tiny = ["sam.img_size=64", "training.num_epochs=1"]
    arguments = ["--data_config", str(workspace.data_config), *rows, "--set", *tiny, "--output", str(tmp_path / "out")]
    head_parts.main(arguments)
    table = (tmp_path / "out" / "head_parts.md").read_text()
    assert table in capsys.readouterr().out
    assert [line.split(" | ")[0] for line in table.splitlines()[2:]] == ["| no head", "| no image"]
    weights = tmp_path / "out" / "no_image" / "seed0" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    heads = [load_trained(weights), load_trained(tmp_path / "out" / "no_head" / "seed0" / "model.safetensors")]
    assert [model.detail_head is None for model, _ in heads] == [False, True]
    head_parts.main(arguments)
    assert weights.stat().st_mtime_ns == before
