"""Bad command lines, configs and data: one line that names the problem, an exit status, and nothing written."""

import numpy as np
import pytest
from PIL import Image

from main import main


def refused(capsys, arguments, status=1):
    """Runs a command that must fail; returns its one-line error."""
    assert main([str(argument) for argument in arguments]) == status
    error = capsys.readouterr().err.strip().splitlines()
    lines = [line for line in error if line.startswith("error: ")]
    assert len(lines) == 1
    assert lines[0] == error[-1]
    return lines[0]


def image_of(workspace, name):
    return workspace.data / "images" / name


def mask_of(workspace, name):
    return workspace.data / "masks" / name


def spoil_rank(w):
    return ["--set", "ft.svd_rank_linear=999"], 2, "svd_rank 999 is outside 0..128"


def spoil_key(w):
    return ["--set", "training.lrr=1"], 2, "training.lrr"


def spoil_missing_mask(w):
    mask_of(w, "train1.png").unlink()
    return [], 1, "train1.png: no mask"


def spoil_mask_size(w):
    Image.new("L", (10, 10)).save(mask_of(w, "val0.png"))
    return [], 1, "val0.png: mask of 10 x 10 pixels"


def spoil_label(w):
    Image.fromarray(np.full((48, 40), 7, np.uint8)).save(mask_of(w, "test0.png"))
    return [], 1, "test0.png: the mask holds values 7"


def spoil_columns(w):
    (w.data / "data_split.csv").write_text("image,set\ntrain0.png,train\n")
    return [], 1, "data_split.csv: no column imgs, split"


def spoil_two_splits(w):
    with (w.data / "data_split.csv").open("a") as file:
        file.write("train0.png,test\n")
    return [], 1, "train0.png is in test, and in train"


def spoil_no_val(w):
    (w.data / "data_split.csv").write_text("imgs,split\ntrain0.png,train\ntest0.png,test\n")
    return (
        [],
        2,
        "has no image of split 'val' to pick the best epoch by, and its 1 to train are one group; add images",
    )


def spoil_image(w):
    image_of(w, "train0.png").write_bytes(b"not an image")
    return [], 1, "train0.png"


def spoil_weights(w):
    return ["--set", "sam.weights=pretrained"], 2, "no base weights: give --pretrained_path"


def spoil_device(w):
    return ["--device", "cuda:7"], 2, "cuda"


def spoil_suffix(w):
    return ["--save_path", str(w.folder / "run" / "m.ckpt")], 2, "must be a file name that ends in .safetensors"


def spoil_best_name(w):
    return ["--save_path", str(w.folder / "run" / "best_val.safetensors")], 2, "kept for the best epoch"


def spoil_seed(w):
    return ["--seed", "-1"], 2, "--seed"


def spoil_option(w):
    return ["--no_such_option"], 2, "--no_such_option"


SPOILERS = [
    spoil_rank,
    spoil_key,
    spoil_missing_mask,
    spoil_mask_size,
    spoil_label,
    spoil_columns,
    spoil_two_splits,
    spoil_no_val,
    spoil_image,
    spoil_weights,
    spoil_device,
    spoil_suffix,
    spoil_best_name,
    spoil_seed,
    spoil_option,
]


@pytest.mark.parametrize("spoil", SPOILERS, ids=lambda spoil: spoil.__name__)
def test_bad_input_is_one_line_that_names_it_and_leaves_nothing(workspace, capsys, spoil):
    more, status, message = spoil(workspace)
    assert message in refused(capsys, workspace.train_arguments("run/m.safetensors", *more), status)
    assert not (workspace.folder / "run").exists()


def test_missing_configs_and_commands_are_named(capsys, tmp_path):
    assert "absent.yaml: cannot be read" in refused(capsys, ["--model_config", tmp_path / "absent.yaml"], 2)
    assert "--model_config" in refused(capsys, ["train"], 2)
    assert "holds_nothing" in refused(capsys, ["prepare", "holds_nothing", "--output", tmp_path / "x"], 2)
    assert "no such file of weights" in refused(capsys, ["test", "--checkpoint", tmp_path / "absent.safetensors"])
    assert "the section data is missing" in refused(capsys, ["--model_config", "configs/model/nano_salt.yaml"], 2)


def test_check_needs_a_data_section(capsys):
    error = refused(capsys, ["check", "--data_config", "configs/model/nano_salt.yaml"], 2)
    assert "the section data is missing" in error


def test_check_reports_and_fails_on_errors(workspace, capsys):
    assert main(["check", "--data_config", str(workspace.data_config)]) == 0
    assert "0 errors, 0 warnings" in capsys.readouterr().out
    mask_of(workspace, "train1.png").unlink()
    assert "has errors" in refused(capsys, ["check", "--data_config", workspace.data_config])


def test_debug_shows_the_traceback(workspace):
    with pytest.raises(Exception, match="no base weights"):
        main(workspace.train_arguments("r/m.safetensors", "--debug", "--set", "sam.weights=pretrained"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "no command 'trian'; did you mean train?"),
        (["trian", "--data_config", "x"], "no command 'trian'; did you mean train?"),
        (["xyz"], "no command 'xyz'; the commands are train, test, predict, score"),
        (["--data-config", "x", "--model_config", "y"], "unknown option --data-config; did you mean --data_config?"),
        (["--data-config=x"], "unknown option --data-config; did you mean --data_config?"),
        (["predict", "--image", "x", "--chekpoint", "y"], "unknown option --chekpoint; did you mean --checkpoint?"),
        (["--model_config", "y", "--no_such_thing"], "unknown option --no_such_thing; see --help"),
        (["test", "more", "--checkpoint", "x"], "unrecognized arguments: more"),
        (["test"], "the following arguments are required: --checkpoint"),
    ],
)
def test_mistyped_commands_and_options_are_told_from_the_nearest(capsys, arguments, message):
    assert message in refused(capsys, arguments, 2)


def test_without_arguments_the_three_commands_of_a_start_are_shown(capsys):
    assert main([]) == 2
    shown = capsys.readouterr()
    assert shown.err == ""
    lines = [line.split() for line in shown.out.splitlines() if line.lstrip().startswith("python main.py")]
    assert [line[2] for line in lines] == ["prepare", "train", "predict"]
    assert len(shown.out.splitlines()) < 25


def test_a_mistyped_key_of_a_plan_is_named_as_plans_have_it(capsys, tmp_path):
    """The field behind model_config has another name, which no plan can use."""
    (tmp_path / "plan.yaml").write_text("output: x\ndatasets: {d: d.yaml}\nrows: {a: {model_config_path: m.yaml}}\n")
    error = refused(capsys, ["sweep", "--plan", tmp_path / "plan.yaml"], 2)
    assert "unknown key rows.a.model_config_path; did you mean rows.a.model_config?" in error
