"""Names that no file system takes, or that two outputs would share, are found before anything is computed."""

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from main import main


def refused(capsys, arguments, status):
    assert main([str(argument) for argument in arguments]) == status
    captured = capsys.readouterr()
    return captured.err.strip().splitlines()[-1], captured.out


def rename(workspace, old, new):
    for folder in ("images", "masks"):
        (workspace.data / folder / old).rename(workspace.data / folder / new)
    table = workspace.data / "data_split.csv"
    table.write_text(table.read_text().replace(old, new))


def label(workspace, name):
    workspace.data_config.write_text(workspace.data_config.read_text().replace("Bar]", f"{name}]"))


@pytest.mark.parametrize("what", ["label", "image"])
def test_too_long_a_name_is_found_by_check_and_at_the_start(workspace, capsys, what):
    label(workspace, "B" * 260) if what == "label" else rename(workspace, "test0.png", "t" * 250 + ".png")
    error, out = refused(capsys, ["check", "--data_config", workspace.data_config], 1)
    assert "bytes long, and file systems take 255; shorten it" in out
    error, _ = refused(capsys, workspace.train_arguments("r/m.safetensors"), 1)
    assert "data_split.csv, row" in error
    assert "bytes long, and file systems take 255; shorten it" in error
    assert not (workspace.folder / "r").exists()


def test_a_name_with_nul_is_found_by_check_and_at_the_start(workspace, capsys):
    with (workspace.data / "data_split.csv").open("a") as file:
        file.write("te\0st.png,test\n")
    _, out = refused(capsys, ["check", "--data_config", workspace.data_config], 1)
    assert "te\\x00st.png' is no file name; rename it" in out
    error, _ = refused(capsys, workspace.train_arguments("r/m.safetensors"), 1)
    assert "te\\x00st.png' is no file name; rename it" in error
    label(workspace, '"B\\0r"')
    error, _ = refused(capsys, workspace.train_arguments("r/m.safetensors"), 2)
    assert "data.label_names[1] = 'B\\x00r': must be printable text" in error


def test_two_images_that_share_their_files_are_named(workspace, capsys):
    (workspace.data / "images" / "test0.jpg").write_bytes((workspace.data / "images" / "test1.png").read_bytes())
    with (workspace.data / "data_split.csv").open("a") as file:
        file.write("test0.jpg,test\n")
    error, _ = refused(capsys, workspace.train_arguments("r/m.safetensors"), 1)
    assert "row 10: test0.jpg and test0.png of row 8 would share test0_Bar.png; rename one" in error


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[Background, Bar]", "[Background, a/b, a_b]", "names two labels whose files would have one name"),
        ("[0, 1]", "[0, 256]", "data.label_list[1] = 256: Input must be less than or equal to 255"),
        (
            "data: {",
            "data: {num_workers: 100000, ",
            "data.num_workers = 100000: Input must be less than or equal to 256",
        ),
        ("data: {", "data: {name: /../../x, ", "data.name = '/../../x': must be a plain name"),
        ("data: {", "data: {name: '..', ", "data.name = '..': must be a plain name"),
    ],
)
def test_values_that_cannot_work_are_refused_with_their_key(workspace, capsys, old, new, message):
    text = workspace.data_config.read_text().replace(old, new)
    workspace.data_config.write_text(text.replace("[0, 1]", "[0, 1, 2]") if "a/b" in new else text)
    error, _ = refused(capsys, workspace.train_arguments("r/m.safetensors"), 2)
    assert message.replace("Input must", "must") in error


def test_a_checkpoints_own_words_do_not_choose_where_results_are_written(sam_weights, tmp_path, capsys):
    with safe_open(sam_weights, framework="pt") as file:
        metadata = file.metadata()
    metadata["config"] = metadata["config"].replace("data:\n", "data:\n  name: /../../x\n", 1)
    lines = [
        line
        for i, line in enumerate(metadata["config"].splitlines())
        if not (line.startswith("  name: ") and "x" not in line)
    ]
    metadata["config"] = "\n".join(lines) + "\n"
    path = tmp_path / "deep" / "folder" / "m.safetensors"
    path.parent.mkdir(parents=True)
    save_file(load_file(sam_weights), path, metadata)
    error, _ = refused(capsys, ["test", "--checkpoint", path, "--device", "cpu"], 2)
    assert f"{path}: data.name = '/../../x': must be a plain name" in error
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]
