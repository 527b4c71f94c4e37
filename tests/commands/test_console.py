"""What a run says when it begins, ends and is stopped, and that log.txt keeps it."""

import re

import pytest
from short_runs import signal_at_step

from main import main

pytestmark = pytest.mark.usefixtures("no_pictures")


def test_a_run_says_what_it_uses_and_where_everything_lies(workspace, capsys, caplog, monkeypatch):
    """Without --save_path; it is in log.txt, once, and a finished run that is left alone adds nothing."""
    caplog.set_level("INFO")
    monkeypatch.chdir(workspace.folder)
    arguments = workspace.train_arguments()
    place = arguments.index("--save_path")
    del arguments[place : place + 2]
    assert main(arguments) == 0
    folder = workspace.folder / "runs" / "set_salt_0"
    beginning = ["device: cpu, precision fp32", "images: 4 train, 2 val, 2 test", "labels: Bar", "trained parameters: "]
    log = (folder / "log.txt").read_text()
    places = [log.index(text) for text in [*beginning, "writes to: ", "epoch 1/2: loss", "epoch 2/2: loss"]]
    assert places == sorted(places)
    assert re.search(r"trained parameters: [\d,]+ of [\d,]+ \(\d+\.\d\d%\)", log)
    printed = capsys.readouterr().out
    assert log.endswith(printed)
    assert log.count("last (epoch 2)") == 2
    for name in ("model.safetensors", "best_val.safetensors", "results.json", "overlays", "predictions", "log.txt"):
        assert str(folder.relative_to(workspace.folder) / name) in printed
    assert main([*arguments, "--resume", "auto"]) == 0
    assert (folder / "log.txt").read_text() == log


def test_a_stop_names_the_folder_and_is_in_the_log(workspace, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        signal_at_step(patch, 1)
        assert main(workspace.train_arguments()) == 3
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: stopped by a signal in epoch 1, step 1; resume with --resume")
    assert error.endswith(f"(the run is in {workspace.folder / 'run'})")
    assert "error: stopped by a signal in epoch 1" in (workspace.folder / "run" / "log.txt").read_text()
