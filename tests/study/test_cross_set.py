"""Tests on other sets: made once for the weights of a run, and again for other weights."""

import json
import subprocess
from types import SimpleNamespace

from main import main
from study import cross_set
from training.run_folder import RunFolder


def test_scores_of_other_weights_are_not_used_again(workspace, no_pictures, monkeypatch):
    assert main(workspace.train_arguments("run/model.safetensors", "--set", "training.num_epochs=1")) == 0
    study = SimpleNamespace(datasets={"b": SimpleNamespace(data_config=workspace.data_config)})
    tests = []

    def test_here(command, **_):
        tests.append(command)
        return SimpleNamespace(returncode=main(command[2:]), stderr="")

    monkeypatch.setattr(subprocess, "run", test_here)
    folder = RunFolder(workspace.folder / "run")
    dice = [cross_set._dice(study, folder, "b") for _ in range(2)]
    assert (dice[0], len(tests)) == (dice[1], 1)
    file = folder.path / "model_set_test" / "results.json"
    results = json.loads(file.read_text())
    results["checkpoint"]["sha256"] = "0" * 64  # as of weights that were trained again
    file.write_text(json.dumps(results))
    assert cross_set._dice(study, folder, "b") == dice[0]
    assert len(tests) == 2
