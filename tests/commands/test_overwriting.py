"""No command replaces a file that it did not make, unless it is told to."""

import shutil

import numpy as np
import pytest
from PIL import Image

from main import main


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_predict_does_not_replace_the_masks_of_a_data_set(sam_weights, workspace, capsys):
    before = contents(workspace.data)
    arguments = ["predict", "--checkpoint", str(sam_weights), "--images", str(workspace.data / "images")]
    assert main([*arguments, "--output", str(workspace.data / "masks"), "--device", "cpu"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.endswith("masks/test0.png: exists, and no prediction wrote it; give another --output, or move it away")
    assert contents(workspace.data) == before


@pytest.mark.parametrize("kind", ["overlay", "probabilities"])
def test_predict_does_not_replace_pictures_of_others(sam_weights, tmp_path, capsys, kind):
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "a.png")
    name = {"overlay": "overlay/a.png", "probabilities": "probabilities/a.npy"}[kind]
    (tmp_path / "out" / name).parent.mkdir(parents=True)
    (tmp_path / "out" / name).write_bytes(b"mine")
    options = {"overlay": ["--overlay"], "probabilities": ["--probabilities", "npy"]}[kind]
    arguments = ["predict", "--checkpoint", str(sam_weights), "--images", str(tmp_path / "a.png"), *options]
    assert main([*arguments, "--output", str(tmp_path / "out"), "--device", "cpu"]) == 1
    assert f"{name}: exists, and no prediction wrote it" in capsys.readouterr().err
    assert (tmp_path / "out" / name).read_bytes() == b"mine"


def test_predict_replaces_what_it_wrote(sam_weights, tmp_path):
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "a.png")
    arguments = ["predict", "--checkpoint", str(sam_weights), "--images", str(tmp_path / "a.png"), "--device", "cpu"]
    for _ in range(2):
        assert main([*arguments, "--output", str(tmp_path / "out"), "--overlay", "--probabilities", "npy"]) == 0


@pytest.mark.parametrize("target", ["checkpoint", "base", "link"])
def test_export_does_not_replace_what_it_exports(sam_weights, tmp_path, capsys, target):
    checkpoint, base = tmp_path / "c.safetensors", tmp_path / "b.safetensors"
    checkpoint.write_bytes(sam_weights.read_bytes())
    base.write_bytes(b"the base")
    output = {"checkpoint": checkpoint, "base": base, "link": tmp_path / "link.safetensors"}[target]
    if target == "link":
        output.symlink_to(checkpoint)
    before = contents(tmp_path)
    arguments = ["export", "--checkpoint", str(checkpoint), "--output", str(output)]
    assert main([*arguments, "--pretrained_path", str(base)]) == 2
    assert "is the file that is exported, or its base; give another name" in capsys.readouterr().err
    assert contents(tmp_path) == before


@pytest.mark.parametrize(("kind", "name"), [("sam", "m.pth"), ("full", "m.safetensors"), ("onnx", "m.onnx")])
def test_export_replaces_a_file_only_if_it_is_told_to(sam_weights, tmp_path, capsys, kind, name):
    (tmp_path / name).write_bytes(b"another run's weights")
    arguments = ["export", "--checkpoint", str(sam_weights), "--output", str(tmp_path / name), "--format", kind]
    assert main(arguments) == 1
    assert f"{tmp_path / name}: exists already; give another --output" in capsys.readouterr().err
    assert (tmp_path / name).read_bytes() == b"another run's weights"
    if kind == "full":
        assert main([*arguments, "--force"]) == 0
        assert (tmp_path / name).read_bytes() != b"another run's weights"


def test_score_replaces_no_results_of_a_model(workspace, capsys):
    shutil.copytree(workspace.data / "masks", workspace.folder / "copy")
    arguments = ["score", "--predictions", str(workspace.folder / "copy"), "--truth", str(workspace.data / "masks")]
    arguments.append("--output")
    for _ in range(2):
        assert main([*arguments, str(workspace.folder / "scores")]) == 0
    run = workspace.folder / "run"
    assert main(workspace.train_arguments("run/m.safetensors", "--training_strategy", "none")) == 0
    before = contents(run)
    assert main([*arguments, str(run)]) == 1
    assert "results.json: holds the results of a model; give another --output" in capsys.readouterr().err
    assert contents(run) == before


def test_export_replaces_only_the_folder_of_an_earlier_export(sam_weights, tmp_path, capsys):
    arguments = ["export", "--checkpoint", str(sam_weights), "--output", str(tmp_path / "hf"), "--format", "hf"]
    assert main(arguments) == 0
    assert main(arguments) == 1
    assert "model.safetensors: exists already; give another --output" in capsys.readouterr().err
    arguments.append("--force")
    assert main(arguments) == 0
    assert {path.name for path in (tmp_path / "hf").iterdir()} == {
        "config.json", "model.safetensors", "preprocessor_config.json"
    }  # fmt: skip
    (tmp_path / "hf" / "model.safetensors").write_bytes(sam_weights.read_bytes())
    before = contents(tmp_path)
    assert main(arguments) == 1
    assert "model.safetensors: exists, and no export wrote it; give another --output" in capsys.readouterr().err
    assert contents(tmp_path) == before
    (tmp_path / "hf" / "model.safetensors").rename(tmp_path / "hf" / "pytorch_model.bin")  # another model's folder
    before = contents(tmp_path)
    assert main(arguments) == 1
    assert "config.json: exists, and no export wrote it; give another --output" in capsys.readouterr().err
    assert contents(tmp_path) == before


@pytest.mark.parametrize("added", ["notes.txt", "images/mine.png", "runs/a/results.json"])
def test_prepare_does_not_remove_what_was_added_to_a_set(tmp_path, capsys, added):
    arguments = ["prepare", "synthetic", "--count", "8", "--size", "64", "--output", str(tmp_path / "set")]
    assert main(arguments) == 0
    path = tmp_path / "set" / added
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    before = contents(tmp_path)
    assert main([*arguments, "--force"]) == 1
    assert f"{path}: is not of the data set, and --force would remove it; move it elsewhere" in capsys.readouterr().err
    assert contents(tmp_path) == before
    path.unlink()
    assert main([*arguments, "--force", "--seed", "1"]) == 0


def test_prepare_does_not_replace_a_set_that_it_did_not_make(workspace, capsys):
    before = contents(workspace.data)
    arguments = ["prepare", "synthetic", "--count", "8", "--size", "64", "--output", str(workspace.data), "--force"]
    assert main(arguments) == 1
    assert "not a data set (no dataset.json), so --force does not replace it" in capsys.readouterr().err
    assert contents(workspace.data) == before
