"""Two runs in one folder: the second is refused and writes nothing; a run that was killed keeps none from it."""

import os
import signal
import time

import pytest
import short_runs as runs
import torch
from short_runs import config_of, run

from experiments.experiment import train_and_evaluate
from main import main
from training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("no_pictures")


def _train(config, save_path):
    train_and_evaluate(config, save_path, torch.device("cpu"))


def contents(folder):
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_second_run_in_a_folder_is_refused_and_writes_nothing(workspace, capsys):
    arguments = workspace.train_arguments("r/m.safetensors", "--training_strategy", "lora")
    folder = RunFolder(workspace.folder / "r")
    first = runs.start(
        _train, config_of(workspace, "training.num_epochs=500"), workspace.folder / "r" / "m.safetensors"
    )
    try:
        while not folder.metrics.exists():
            assert first.exitcode is None
            time.sleep(0.05)
        os.kill(first.pid, signal.SIGSTOP)  # what changes now was not it
        before = contents(folder.path)
        for more in ([], ["--resume"], ["--resume", "auto"]):
            assert main([*arguments, *more]) == 1
            error = capsys.readouterr().err.strip().splitlines()[-1]
            assert error.startswith(f"error: {folder.path}: another process runs here; wait for it")
        assert contents(folder.path) == before
    finally:
        first.kill()
        first.join()
    assert folder.lock.exists()
    assert main(arguments) == 1
    assert "holds an unfinished run" in capsys.readouterr().err
    assert not folder.lock.exists()


@pytest.mark.parametrize("more", [[], ["--resume", "auto"]], ids=" ".join)
@pytest.mark.parametrize("name", ["data_split.csv", "config.yaml", "best_val.safetensors"])
def test_a_run_replaces_no_file_that_no_run_wrote(workspace, capsys, name, more):
    """As where --save_path lies in the data set's folder, or beside a config that the user wrote."""
    file = workspace.folder / "mine" / name
    file.parent.mkdir()
    file.write_text(config_of(workspace).to_yaml())
    assert main(workspace.train_arguments("mine/m.safetensors", "--training_strategy", "lora", *more)) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == f"error: {file}: exists, and no run wrote it; give a --save_path in another folder"
    assert list(contents(file.parent)) == [file.relative_to(file.parent)]


def test_what_a_killed_run_wrote_half_is_removed_by_the_next(workspace):
    folder = RunFolder(workspace.folder / "r")
    left = [".results.7.tmp.json", ".m.7.tmp.safetensors", "overlays/a/.x_Bar.7.tmp.png", "predictions/.y.7.tmp.png"]
    others = [".other.7.tmp.safetensors", ".hidden", "other/.results.7.tmp.json"]
    for name in (*left, *others):
        (folder.path / name).parent.mkdir(parents=True, exist_ok=True)
        (folder.path / name).touch()
    run(workspace, "r/m.safetensors", "training.num_epochs=1")
    assert [name for name in (*left, *others) if (folder.path / name).exists()] == others


def test_a_run_leaves_what_other_programs_wrote_into_last(workspace):
    other = workspace.folder / "r" / "last" / "state_dict.pth"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"mine")
    run(workspace, "r/m.safetensors", "training.num_epochs=1")
    assert other.read_bytes() == b"mine"


def test_states_that_no_run_of_this_folder_wrote_are_kept(workspace, capsys):
    last = workspace.folder / "copied" / "last"
    last.mkdir(parents=True)
    for name, content in (("state_000001.pth", b"state"), ("state_000001.pth.sha256", b"0  state_000001.pth\n")):
        (last / name).write_bytes(content)
    (last / "state_000002.pth").write_bytes(b"its checksum has not arrived yet")
    before = contents(last)
    assert main(workspace.train_arguments("copied/m.safetensors", "--training_strategy", "lora")) == 1
    assert "state_000001.pth: exists, and no run wrote it" in capsys.readouterr().err
    assert contents(last) == before
