"""A new method is one file in adapters/ and one line of the registry: a toy method goes through the real commands."""

import csv
import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import adapters
from utils.config.adapters import FtConfig

ROOT = Path(__file__).resolve().parents[2]
TOY = '''
"""A scale of each row of the weight, from 1."""

import torch
from torch import Tensor, nn

from .base import Adaptable, AdaptedLayer
from .ranks import Ranks


class ToyLayer(AdaptedLayer):
    """W~ = diag(gain) W, and as many further gains as the rank says."""

    weight: Tensor

    def __init__(self, layer: Adaptable, rank: int, power: float) -> None:
        super().__init__(layer)
        self.register_buffer("weight", layer.weight.detach(), persistent=False)
        self.gain = nn.Parameter(torch.ones_like(self.weight.flatten(1)[:, 0]))
        self.more = nn.Parameter(self.weight.new_zeros(rank))
        self.power = power

    @classmethod
    def build(cls, layer: Adaptable, ranks: Ranks, lora_dropout: float = 0.5) -> "ToyLayer":
        return cls(layer, ranks.r_lora, 1 + lora_dropout)

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        return {"gain": self.gain, "more": self.more}

    def merged_weight(self) -> Tensor:
        gain = (self.gain**self.power) * (1 + self.more.sum())
        return self.weight * gain.reshape(-1, *[1] * (self.weight.dim() - 1))
'''
LINE = '    "toy": Method("toy.ToyLayer", "A toy", ("r_lora",)),\n'
# Run in the copy of the project: each command, and how many layers of the trained and of the merged model are toys.
COMMANDS = """
import sys, contextlib, io, json
from main import main
from model import load_trained
import adapters
from experiments import experiment, scoring
experiment.plot_curves = scoring.save_overlay = lambda *_, **__: None  # they take longer than the training
workspace, arguments = sys.argv[1], sys.argv[2:]
toy = [*arguments, "--training_strategy", "toy", "--set", "ft.lora_dropout=0.25", "ft.r_lora=3"]
run = f"{workspace}/run"
out = io.StringIO()
with contextlib.redirect_stdout(out):
    assert main(["params", "--json", *toy[2:]]) == 0
counts = json.loads(out.getvalue())
assert main([*toy, "training.num_epochs=1", "--save_path", f"{run}/m.safetensors", "--device", "cpu"]) == 0
assert main([*toy, "--save_path", f"{run}/m.safetensors", "--device", "cpu", "--resume"]) == 0
assert main(["test", "--checkpoint", run, "--device", "cpu"]) == 0
for kind in ("sam", "full"):
    assert main(["export", "--checkpoint", run, "--format", kind, "--output", f"{workspace}/{kind}.safetensors"]) == 0
full = ["--checkpoint", f"{workspace}/full.safetensors", "--data_config", arguments[1]]
assert main(["test", *full, "--device", "cpu"]) == 0
assert main(["table", "--runs", run, "--output", f"{workspace}/table"]) == 0
model, config = load_trained(f"{run}/m.safetensors")
layers = [layer for _, layer in adapters.adapted_layers(model)]
moved = sum(bool((layer.gain != 1).any() and (layer.more != 0).any()) for layer in layers)
state = adapters.adapter_state_dict(model)
adapters.load_adapter_state_dict(model, state)
left = len(list(adapters.adapted_layers(adapters.merge(model))))
print(json.dumps({"counts": counts, "layers": len(layers), "power": layers[0].power, "moved": moved, "left": left}))
"""


@pytest.fixture
def project(tmp_path):
    """The project with a toy method: one more file in adapters/, one more line in its registry."""
    copy = tmp_path / "project"
    copy.mkdir()
    for path in ROOT.iterdir():
        if path.suffix == ".py":
            shutil.copy(path, copy)
        elif path.is_dir() and (path / "__init__.py").exists() and path.name not in ("adapters", "tests"):
            (copy / path.name).symlink_to(path)
    shutil.copytree(ROOT / "adapters", copy / "adapters", ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "adapters" / "toy.py").write_text(TOY)
    registry = copy / "adapters" / "registry.py"
    text = registry.read_text()
    assert text.endswith("\n}\n")
    registry.write_text(text[:-2] + LINE + "}\n")
    return copy


def test_a_file_and_a_line_make_a_strategy_that_every_command_knows(project, workspace):
    arguments = ["--data_config", workspace.data_config, "--model_config", workspace.model_config]
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, workspace.folder, *arguments],
        cwd=project, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["layers"], found["moved"], found["left"], found["power"]) == (18, 18, 0, 1.25)
    results = json.loads((workspace.folder / "run" / "results.json").read_text())
    assert (results["method"], results["ranks"]["r_lora"], results["epochs"]) == ("toy", 3, 2)
    assert "svd_rank_linear" not in results["ranks"]
    assert results["trainable"] == found["counts"]["trainable"]
    full = json.loads(next(workspace.folder.glob("full_*/results.json")).read_text())
    again = json.loads(next((workspace.folder / "run").glob("m_*/results.json")).read_text())
    assert full["img_size"]["dice"]["mean"] == pytest.approx(again["img_size"]["dice"]["mean"], abs=1e-6)
    with next((workspace.folder / "table").glob("*.csv")).open() as file:
        assert any("A toy 3" in cell for row in csv.reader(file) for cell in row)


@pytest.mark.parametrize("name", adapters.METHODS)
def test_a_methods_options_are_keys_of_the_config_or_what_the_caller_alone_can_give(name):
    method = adapters.METHODS[name]
    assert set(method.options) <= {*FtConfig.model_fields, "decompose", "generator"}
    assert getattr(adapters, method.layer.__name__) is method.layer
    assert (inspect.getdoc(method.layer) or "").count("Source: ") == 1
    assert f"[`{name}`](../adapters/{method.home.partition('.')[0]}.py)" in (ROOT / "docs" / "methods.md").read_text()


def test_an_unknown_name_of_the_package_is_an_attribute_error():
    assert not hasattr(adapters, "SALTlayer")
    assert all(hasattr(adapters, name) for name in adapters.__all__)
