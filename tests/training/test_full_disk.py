"""A full disk is one line that names the file and what is whole; the limit on a file's size stands for the disk."""

import re
import resource
from contextlib import contextmanager

import pytest
from short_runs import assert_same_runs, run

from evaluation import results
from experiments import experiment
from main import main
from training import run_log

pytestmark = pytest.mark.usefixtures("no_pictures")


@contextmanager
def full_disk(size=3000):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fill_disk_at(monkeypatch, module, name, which=lambda *_: True, size=3000):
    original = getattr(module, name)

    def called(*arguments, **options):
        if not which(*arguments):
            return original(*arguments, **options)
        with full_disk(size):
            return original(*arguments, **options)

    monkeypatch.setattr(module, name, called)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("file", ["best_val", "m", "metrics", "per_image"])
def test_training_says_what_is_whole_and_goes_on_from_there(workspace, monkeypatch, capsys, file, suffix):
    save = f"cut/m.{suffix}"
    with monkeypatch.context() as patch:
        if file == "metrics":
            fill_disk_at(patch, run_log.RunLog, "epoch", lambda _, record: record["epoch"] == 2, 300)
            name = "metrics.jsonl"
        elif file == "per_image":
            fill_disk_at(patch, experiment, "write_per_image", size=20)
            name = "per_image.csv"
        else:
            fill_disk_at(patch, experiment, "save_model", lambda *arguments: arguments[2].stem == file)
            name = "best_val.safetensors" if file == "best_val" else f"m.{suffix}"
        arguments = workspace.train_arguments(save, "--training_strategy", "lora", "--set", "training.num_epochs=2")
        assert main(arguments) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.fullmatch(
        rf"error: \S*cut/{name}: cannot be written \(File too large\); .*; free some space, or choose another folder; "
        r"--resume goes on from \S*cut/last, which is whole",
        error,
    ), error
    assert not list((workspace.folder / "cut").rglob(".*"))
    run(workspace, save, "training.num_epochs=2", resume=True)
    run(workspace, f"whole/m.{suffix}", "training.num_epochs=2")
    assert_same_runs(workspace.folder / "whole", workspace.folder / "cut", f"m.{suffix}")


@pytest.mark.parametrize("name", ["e.safetensors", "e.pth", "f.safetensors"])
def test_export_keeps_the_file_before_it(sam_weights, tmp_path, capsys, name):
    output = tmp_path / name
    arguments = ["export", "--checkpoint", str(sam_weights), "--output", str(output)]
    arguments += ["--format", "full" if name[0] == "f" else "sam", "--force"]
    for before, whole in ((None, "nothing of it was kept"), (b"mine", "the file before it is undamaged")):
        if before:
            output.write_bytes(before)
        with full_disk():
            assert main(arguments) == 1
        error = capsys.readouterr().err.strip()
        assert error == (
            f"error: {output}: cannot be written (File too large); {whole}; free some space, or choose another folder"
        )
        assert (output.read_bytes() if output.exists() else None) == before
        assert len(list(tmp_path.iterdir())) == (before is not None)


def test_predict_stops_at_a_full_disk(sam_weights, workspace, capsys):
    arguments = ["predict", "--checkpoint", str(sam_weights), "--images", str(workspace.data / "images")]
    with full_disk(20):
        assert main([*arguments, "--output", str(workspace.folder / "out"), "--device", "cpu"]) == 1
    error = capsys.readouterr().err.strip().splitlines()
    assert "out/test0.png: cannot be written (File too large); nothing of it was kept" in error[-1]


def test_the_results_of_before_stay(tmp_path, monkeypatch):
    (tmp_path / "results.json").write_text("before")
    with (
        full_disk(1),
        pytest.raises(OSError, match=r"results.json: cannot be written .*; the file before it is undamaged"),
    ):
        results.write_json(tmp_path / "results.json", {"a": 1})
    assert (tmp_path / "results.json").read_text() == "before"
