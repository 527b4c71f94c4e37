"""The command line's part with data: prepare, check, and the folds of a cross-validation."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from main import main
from utils.config import load_config


def refused(capsys, arguments, status=1):
    """Runs a command that must fail; returns its one-line error."""
    assert main([str(argument) for argument in arguments]) == status
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    return line


def test_fold_num_picks_the_fold_that_is_tested(workspace, capsys):
    """Two of four folds, through training and results; a fold that isn't there ends before anything is written."""
    rows = ["imgs,split,fold,group"]
    names = sorted(path.name for path in (workspace.data / "images").iterdir())
    rows += [f"{name},{'test' if i % 4 == 0 else 'train'},{i % 4},{name}" for i, name in enumerate(names)]
    (workspace.data / "data_split.csv").write_text("\n".join(rows) + "\n")
    for fold in (0, 3):
        save = f"fold{fold}/model.safetensors"
        options = ["--set", f"data.fold_num={fold}", "data.val=test", "training.num_epochs=1"]
        assert main(workspace.train_arguments(save, *options)) == 0
        folder = workspace.folder / f"fold{fold}"
        tested = {row["image"] for row in csv.DictReader((folder / "per_image.csv").open())}
        assert tested == {name for i, name in enumerate(names) if i % 4 == fold}
        assert json.loads((folder / "results.json").read_text())["fold"] == fold
    capsys.readouterr()
    error = refused(
        capsys, workspace.train_arguments("x/m.safetensors", "--set", "data.fold_num=4", "data.val=test"), 2
    )
    assert "data.fold_num = 4, but the folds are 0, 1, 2, 3" in error
    assert not (workspace.folder / "x").exists()


def test_prepare_by_the_command_line(tmp_path, capsys):
    """A user's folder: what is shown, both spellings of an option, a second run, an option of another set."""
    for folder, ending in (("photos", "_photo"), ("drawings", "_drawing")):
        (tmp_path / folder).mkdir()
        for i in range(4):
            Image.fromarray(np.eye(9, dtype=np.uint8) * (50 + i)).save(tmp_path / folder / f"{i}{ending}.png")
    (tmp_path / "photos" / "stray.png").write_bytes(b"")
    arguments = ["prepare", "folder", "--images", tmp_path / "photos", "--masks", tmp_path / "drawings"]
    arguments += ["--pattern", "{id}_photo={id}_drawing", "--output", tmp_path / "out"]
    arguments = [str(argument) for argument in arguments]
    assert main([*arguments, "--test-fraction", "0.5", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert main([*arguments, "--test_fraction", "0.5"]) == 0
    written = capsys.readouterr().out
    report, _, after = written.partition("data config: ")
    assert shown == report + "dry run: nothing was written\n"
    assert after.startswith(f"{tmp_path / 'out' / 'data.yaml'}\nnext: python ")
    assert "--set sam.img_size=32 --save_path runs/out/model.safetensors" in written
    assert "pairing by {id}_photo={id}_drawing: 4 pairs" in written
    assert "  0_photo.png  <->  0_drawing.png" in written
    assert "stray.png" in written
    assert report.endswith("out: 4 images (2 train, 2 test); seed 0\n")
    assert "exists already; " in (error := refused(capsys, arguments))
    assert "--force" in error
    assert main([*arguments, "--force", "--folds", "2"]) == 0
    assert "2 folds of 2, 2" in capsys.readouterr().out
    refusal = refused(
        capsys, ["prepare", "stare", "--source", tmp_path, "--output", tmp_path / "x", "--subset", "SVC"], 2
    )
    assert "prepare stare has no option --subset; it has --observer" in refusal
    for option in (["--split", "random"], ["--observer", "3"], ["--folds", "x"]):
        refused(capsys, ["prepare", "stare", "--output", tmp_path / "x", *option], 2)


def test_prepare_takes_several_archives(tmp_path, capsys):
    sources = ["--source", str(tmp_path / "a.zip"), str(tmp_path / "b.zip")]
    error = refused(capsys, ["prepare", "drive", *sources, "--output", tmp_path / "x"])
    assert "a.zip: no such folder or archive" in error


def test_check_writes_the_contact_sheet_beside_the_split_file_or_where_told(workspace, capsys):
    assert main(["check", "--data_config", str(workspace.data_config)]) == 0
    output = capsys.readouterr().out
    sheet = workspace.data / "contact_sheet.png"
    assert f"contact sheet: {sheet}" in output
    assert "8 images" in output
    assert "  sizes         8 of 40 x 48 (width x height)" in output
    with Image.open(sheet) as image:
        assert image.format == "PNG"
    sheet.unlink()
    other = workspace.folder / "elsewhere" / "sheet.png"
    assert main(["check", "--data_config", str(workspace.data_config), "--output", str(other)]) == 0
    assert other.is_file()
    assert not sheet.exists()
    (workspace.folder / "file").write_text("mine")
    below = workspace.folder / "file" / "sheet.png"
    assert main(["check", "--data_config", str(workspace.data_config), "--output", str(below)]) == 0
    assert "contact sheet: not written" in capsys.readouterr().out


@pytest.mark.parametrize(("brightest", "a_max"), [(4000, 4095), (60000, None)])
def test_twelve_bits_in_a_file_of_sixteen_get_their_window(tmp_path, brightest, a_max):
    """By default 16 bits are taken as such, and 12 of them would be nearly black."""
    for folder, value in (("images", brightest), ("masks", 1)):
        (tmp_path / folder).mkdir()
        for i in range(4):
            image = np.eye(40, dtype=np.uint16 if folder == "images" else np.uint8) * value
            Image.fromarray(image).save(tmp_path / folder / f"{i}.png")
    sources = ["--images", str(tmp_path / "images"), "--masks", str(tmp_path / "masks")]
    assert main(["prepare", "folder", *sources, "--output", str(tmp_path / "out")]) == 0
    assert load_config(None, tmp_path / "out" / "data.yaml").data_transforms.a_max == a_max


def test_large_images_are_told_of_both_scales(tmp_path, capsys):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for i in range(3):
            Image.fromarray(np.eye(1024, 8, dtype=np.uint8)).save(tmp_path / folder / f"{i}.png")
    sources = ["--images", str(tmp_path / "images"), "--masks", str(tmp_path / "masks")]
    assert main(["prepare", "folder", *sources, "--output", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("images of up to 1024 pixels: ")
    assert "data_transforms.scale=fit" in lines[-2]
    assert lines[-1].startswith("next: python ")
    assert "img_size" not in lines[-1]
