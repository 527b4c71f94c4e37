"""Files and values that nobody means to give: one line that names them, and no wait."""

import os
import pwd
import re

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from checkpointing.tensor_files import read_state_dict
from commands.run import error_line
from main import main
from report.drawing import figure, save
from utils.errors import ConfigError, UserError
from utils.files import cache_folder

SPARSE = torch.eye(4).to_sparse()


def error_of(capsys, arguments, status):
    assert main([str(argument) for argument in arguments]) == status
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.err.strip().splitlines()[-1]


@pytest.fixture
def parts(sam_weights):
    """Tensors and metadata of a checkpoint."""
    with safe_open(sam_weights, framework="pt") as file:
        return load_file(sam_weights), file.metadata()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors, metadata: metadata.pop("config"), "is a damaged checkpoint, its metadata lack config"),
        (lambda tensors, metadata: metadata.pop("epoch"), "is a damaged checkpoint, its metadata lack epoch"),
        (lambda tensors, metadata: metadata.update(epoch=[1]), "is a damaged checkpoint, its metadata lack epoch"),
        (lambda tensors, metadata: metadata.update(epoch="x"), "its tensors or its epoch are none"),
        (lambda tensors, metadata: tensors.update(a="text"), "its tensors or its epoch are none"),
        (lambda tensors, metadata: tensors.update(a=SPARSE), "'a' is no plain array of real numbers"),
        (lambda tensors, metadata: tensors.update(a=torch.ones(2, dtype=torch.complex64)), "'a' is no plain array"),
        (lambda tensors, metadata: tensors.update(a=tensors.pop("image_encoder.pos_embed").int()), "unexpected keys"),
        (
            lambda tensors, metadata: tensors.update(
                {"image_encoder.pos_embed": tensors["image_encoder.pos_embed"].bool()}
            ),
            "'image_encoder.pos_embed' is of torch.bool, the model needs torch.float32",
        ),
    ],
)
def test_checkpoints_with_odd_content(parts, tmp_path, capsys, change, message):
    tensors, metadata = parts
    change(tensors, metadata)
    torch.save({"tensors": tensors, "metadata": metadata}, tmp_path / "m.pth")
    arguments = ["test", "--checkpoint", tmp_path / "m.pth", "--device", "cpu"]
    error = error_of(capsys, arguments, 1)
    assert error.startswith(f"error: {tmp_path / 'm.pth'}: ")
    assert message in error


def test_a_dictionary_that_holds_itself_is_no_state_dict(tmp_path):
    content = {"a": torch.ones(1)}
    content["model"] = content
    torch.save(content, tmp_path / "m.pth")
    with pytest.raises(UserError, match="holds no state dict of tensors"):
        read_state_dict(tmp_path / "m.pth")


ALIASES = "a0: &a0 [x, x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))


@pytest.mark.parametrize("text", [ALIASES, "a: &a [*a]\n", "a: &a {b: *a}\n"])
def test_aliases_that_grow_without_bound_are_refused(tmp_path, capsys, text):
    (tmp_path / "m.yaml").write_text(text)
    error = error_of(capsys, ["params", "--model_config", tmp_path / "m.yaml"], 2)
    assert error.endswith("aliases (*name) repeat too much")


def test_a_pipe_is_not_waited_for(workspace, capsys):
    for name in ("config.yaml", "split.csv", "m.safetensors", "image.png"):
        os.mkfifo(workspace.folder / name)
    error = error_of(capsys, ["params", "--model_config", workspace.folder / "config.yaml"], 2)
    assert "config.yaml: cannot be read (no regular file)" in error
    more = ["--set", f"data.data_split_csv={workspace.folder / 'split.csv'}"]
    assert "split.csv: not a readable CSV file (no regular file)" in error_of(
        capsys, workspace.train_arguments("r/m.safetensors", *more), 1
    )
    error = error_of(capsys, ["test", "--checkpoint", workspace.folder / "m.safetensors"], 1)
    assert "m.safetensors: no such file" in error
    (workspace.folder / "runs").mkdir()
    os.mkfifo(workspace.folder / "runs" / "results.json")
    assert "no finished run" in error_of(capsys, ["table", "--runs", workspace.folder / "runs"], 1)


@pytest.mark.parametrize("value", ["1e30", "1" + "0" * 30, "2147483648", ".nan", ".inf", "true", "[1]"])
def test_odd_batch_sizes_are_named(workspace, capsys, value):
    error = error_of(capsys, workspace.train_arguments("r/m.safetensors", "--set", f"training.batch_size={value}"), 2)
    assert error.startswith("error: --set: training.batch_size = ")


def test_paths_that_are_no_text_are_named(workspace, capsys):
    error = error_of(capsys, workspace.train_arguments("r/m.safetensors", "--pretrained_path", "/tmp/\udcff.pth"), 2)
    assert error.startswith("error: --pretrained_path: pretrained_path = ")
    assert error.endswith(": must be a path of UTF-8 text")
    with pytest.raises(UnicodeEncodeError) as caught:
        "a\udcff".encode()
    assert error_line(caught.value) == r"'a\udcff': is not UTF-8 text; rename the file or folder"


def test_no_home_folder(workspace, monkeypatch, capsys):
    for variable in ("HOME", "XDG_CACHE_HOME", "SALT_CACHE"):
        monkeypatch.delenv(variable, raising=False)

    def nobody(_):
        raise KeyError("no such user")

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(UserError, match="no home folder for the cache; set HOME, or SALT_CACHE"):
        cache_folder()
    error = error_of(capsys, workspace.train_arguments("r/m.safetensors", "--set", "data.root_path=~/x"), 2)
    assert error.endswith("begins with ~, and there is no home folder; write the path in full")


@pytest.mark.parametrize("text", ["", '{"last": {"dice"', "[" * 100_000, "\xff\xfe", "null", '{"last": 1}'])
def test_results_cut_short_are_named(tmp_path, capsys, text):
    (tmp_path / "results.json").write_text(text, encoding="latin-1")
    error = error_of(capsys, ["table", "--runs", tmp_path], 1)
    assert f"{tmp_path / 'results.json'}: " in error


def test_names_with_dollars_are_drawn_as_they_are(tmp_path):
    with figure(2, 2) as drawing:
        drawing.subplots().set(title=r"a$\b$c$", xlabel="$^$")
        assert save(drawing, tmp_path, "x", "", "", "").png.is_file()


def test_an_error_of_several_lines_is_one_line():
    assert error_line(UserError("a.png: bad\n  because\nof this")) == "a.png: bad because of this"
    assert error_line(ConfigError("x")) == "x"
    with pytest.raises(FileNotFoundError) as caught:
        os.listdir("/absent/file")
    assert error_line(caught.value) == "/absent/file: No such file or directory"


def test_the_full_export_tells_no_folders_of_this_machine(sam_weights, tmp_path):
    assert (
        main(
            [
                "export",
                "--checkpoint",
                str(sam_weights),
                "--output",
                str(tmp_path / "f.safetensors"),
                "--format",
                "full",
            ]
        )
        == 0
    )
    with safe_open(tmp_path / "f.safetensors", framework="pt") as file:
        config = file.metadata()["config"]
    assert not re.search(r": /", config), config


def test_what_a_killed_export_left_is_removed(sam_weights, tmp_path):
    (tmp_path / ".f.7.tmp.safetensors").touch()
    (tmp_path / ".g.7.tmp.safetensors").touch()
    assert main(["export", "--checkpoint", str(sam_weights), "--output", str(tmp_path / "f.safetensors")]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [".g.7.tmp.safetensors", "f.safetensors"]
