"""Run folders as checkpoints, moved runs and moved base weights, and what is said where nothing is found."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.sweep_plan import read_plan, sweep_runs
from main import main
from model import load_trained
from training.run_folder import RunFolder
from training.run_weights import weights_of
from utils.errors import UserError

OLD = Path(__file__).resolve().parent / "old_runs"
ROOT = OLD.parents[1]


def refused(capsys, arguments, status=1):
    """Runs a command that must fail; returns its one-line error."""
    assert main([str(argument) for argument in arguments]) == status
    error = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in error if line.startswith("error: ")]) == 1
    return error[-1]


@pytest.fixture
def moved(tmp_path, monkeypatch):
    """A finished run, copied to another place, with the working directory elsewhere too."""
    shutil.copytree(OLD / "finished", tmp_path / "there" / "finished")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "there" / "finished"


def test_every_command_takes_a_moved_run_folder_from_anywhere(moved, tmp_path):
    """Its data and base weights are named from the project's root."""
    images = tmp_path / "images"
    images.mkdir()
    Image.fromarray(np.zeros((9, 8, 3), np.uint8)).save(images / "a.png")
    arguments = ["--checkpoint", "there/finished", "--device", "cpu"]
    assert main(["predict", *arguments, "--images", "images", "--output", "masks"]) == 0
    assert (tmp_path / "masks" / "a.png").is_file()
    assert main(["test", *arguments]) == 0
    assert len(list(moved.glob("model_*/results.json"))) == 1
    assert main(["export", *arguments[:2], "--output", "sam.pth"]) == 0
    assert (tmp_path / "sam.pth").is_file()


def test_a_run_can_start_from_another_runs_folder(moved, workspace):
    workspace.model_config.write_text(workspace.model_config.read_text().replace(", weights: random", ""))
    more = ["--pretrained_path", str(moved), "--set", "training.num_epochs=1", "sam.img_size=64"]
    assert main(workspace.train_arguments("run/model.safetensors", *more)) == 0
    assert "model.safetensors" in (workspace.folder / "run" / "config.yaml").read_text()


def test_the_weights_of_a_run_folder(tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    with pytest.raises(UserError, match=r"run: is a folder without a run's weights; .*run holds none"):
        weights_of(folder)
    (folder / "best_val.safetensors").touch()
    assert weights_of(folder) == folder / "best_val.safetensors"
    (folder / "run.txt").write_text("mine.pth\n")
    assert weights_of(folder) == folder / "best_val.safetensors"  # the run has not ended
    (folder / "mine.pth").touch()
    assert weights_of(folder) == folder / "mine.pth"
    with pytest.raises(UserError, match=r"is a folder without a run's weights; there are .*run/best_val\.safetensors"):
        weights_of(tmp_path)


def test_the_final_weights_of_a_second_run_lie_beside_its_folder(tmp_path):
    """checkpoints/lora.pth, whose records are in checkpoints/lora since checkpoints/salt.pth has the folder."""
    (tmp_path / "run.txt").write_text("salt.pth\n")
    folder = RunFolder.of(tmp_path / "lora.pth").path
    folder.mkdir()
    for path in (folder / "best_val.safetensors", tmp_path / "salt.pth", tmp_path / "lora.pth"):
        path.touch()
    (folder / "run.txt").write_text("lora.pth\n")
    assert weights_of(folder) == tmp_path / "lora.pth"
    assert weights_of(tmp_path) == tmp_path / "salt.pth"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.safetensor", "no such file of weights; did you mean {moved}/model.safetensors?"),
        ("absent/x.safetensors", "no such file of weights; there is no folder {moved}/absent either"),
        (
            "config.yaml",
            "is no file of weights, which end in .safetensors, .pth, .pt; there are {moved}/model.safetensors",
        ),
    ],
)
def test_a_typo_as_checkpoint(moved, capsys, name, message):
    error = refused(capsys, ["test", "--checkpoint", moved / name])
    assert error.startswith(f"error: {moved / name}: {message.format(moved=moved)}")


def test_a_text_file_as_checkpoint(capsys):
    assert "README.md: is no file of weights" in refused(capsys, ["test", "--checkpoint", ROOT / "README.md"])


def test_base_weights_are_found_by_their_hash(moved, monkeypatch, tmp_path, capsys):
    """Under another name in $SALT_WEIGHTS; a file of the right name and other content is not taken."""
    weights = moved / "model.safetensors"
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    shutil.copy(ROOT / "weights" / "nano_sam.safetensors", folder / "renamed.safetensors")
    (folder / "nano_sam.safetensors").write_bytes(b"another")
    (folder / "half.safetensors.index.json").write_text('{"weight_map": {"a": "absent.safetensors"}}')
    monkeypatch.setattr("utils.files.PROJECT_ROOT", tmp_path / "no_project")
    with pytest.raises(UserError, match=r"needs its base weights .*nano_sam.*, which do not exist; no file in "):
        load_trained(weights)
    monkeypatch.setenv("SALT_WEIGHTS", str(folder))
    _, config = load_trained(weights)
    assert config.pretrained_path == folder / "renamed.safetensors"
    (folder / "renamed.safetensors").unlink()
    with pytest.raises(UserError, match=r"no file in .* or .*elsewhere has"):
        load_trained(weights)


def test_a_plan_runs_from_anywhere(tmp_path, monkeypatch):
    """The project's own, by its name in the project, and a user's, whose configs lie beside it."""
    monkeypatch.chdir(tmp_path)
    for run in sweep_runs(read_plan(Path("configs/table1/miniature.yaml"))):
        assert run.config().arch
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "m.yaml").write_text("seed: 7\n")
    text = "output: x\ndatasets: {d: configs/data/drive.yaml}\nrows: {a: {model_config: m.yaml}}\n"
    (tmp_path / "plans" / "plan.yaml").write_text(text)
    [run] = sweep_runs(read_plan(Path("plans/plan.yaml")))
    assert run.config().require_data().name == "DRIVE"
    assert run.plan.rows["a"].model_config_path == Path("plans/m.yaml")
