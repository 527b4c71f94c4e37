"""The real command line, as a user calls it: one-line errors, exit statuses, files it leaves."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from main import main
from model import build_model
from prompt_adapted_segment_anything import SAM_PREFIXES
from utils.config import load_config

ROOT = Path(__file__).resolve().parents[1]


def refused(capsys, arguments, status=1):
    """Runs a command that must fail; returns its one-line error."""
    assert main([str(argument) for argument in arguments]) == status
    error = capsys.readouterr().err.strip().splitlines()
    lines = [line for line in error if line.startswith("error: ")]
    assert len(lines) == 1
    assert lines[0] == error[-1]
    return lines[0]


def test_the_published_command_trains_evaluates_and_leaves_the_whole_folder(workspace):
    """The README's first command, in a process of its own: no subcommand, .pth for save_path, CPU for cuda:0."""
    arguments = workspace.train_arguments("checkpoints/salt_model.pth", "--training_strategy", "salt")
    done = subprocess.run(
        [sys.executable, "main.py", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "last (epoch 2): Dice" in done.stdout
    assert "best_val (epoch" in done.stdout
    assert "epoch 2/2: loss" in done.stderr
    folder = workspace.folder / "checkpoints"
    names = {
        "config.yaml",
        "environment.json",
        "metrics.jsonl",
        "tensorboard",
        "curves.png",
        "overlays",
        "results.json",
    }
    names |= {"per_image.csv", "last", "best_val.safetensors", "salt_model.pth"}
    assert names <= {path.name for path in folder.iterdir()}
    assert {path.name for path in (folder / "overlays").iterdir()} == {"test0_Bar.png", "test1_Bar.png"}

    results = json.loads((folder / "results.json").read_text())
    assert (results["method"], results["dataset"], results["split"], results["seed"]) == ("salt", "set", "test", 0)
    assert results["ranks"] == {"svd_rank_linear": 8, "svd_rank_conv2d": 4, "r_lora": 2, "rank_pattern": {}}
    assert results["text_encoder"] == "learned"
    assert results["weights"] == "random"
    assert 0 < results["trainable"] < results["total"]
    assert results["percent"] == pytest.approx(100 * results["trainable"] / results["total"])
    assert results["seconds_per_epoch"] > 0
    assert set(results["seconds"]) == {"to_build", "per_test_sample"}
    assert results["peak_memory_bytes"] > 1e6
    rows = list(csv.DictReader((folder / "per_image.csv").open()))
    assert len(rows) == 4
    for weights in ("last", "best_val"):
        dice = [float(row["dice_native"]) for row in rows if row["weights"] == weights]
        assert results[weights]["native"]["dice"]["mean"] == pytest.approx(np.mean(dice), abs=1e-6)
        assert results[weights]["native"]["n"] == 2


def test_the_published_configs_train_with_an_official_checkpoint_at_another_size(workspace):
    """configs/SALT_config.yaml and config_data.yaml as published, but for paths, epochs, and a ViT of nano's size."""
    config = load_config(workspace.model_config, None, ["sam.img_size=64"], "none")
    state = {k: v for k, v in build_model(config).state_dict().items() if k.startswith(SAM_PREFIXES)}
    base = workspace.folder / "sam_vit_n.pth"
    torch.save(state, base)
    overrides = ["sam.sam_type=nano", "sam.img_size=32", "data_transforms.img_size=32", "training.num_epochs=1"]
    overrides += ["prompts.text_encoder=learned"]
    overrides += [f"data.root_path={workspace.data}", f"data.data_split_csv={workspace.data}/data_split.csv"]
    for strategy in ("salt", "lora"):
        save = workspace.folder / "checkpoints" / f"{strategy}_model.pth"
        arguments = ["--data_config", "configs/config_data.yaml", "--model_config", "configs/SALT_config.yaml"]
        arguments += ["--pretrained_path", str(base), "--save_path", str(save), "--training_strategy", strategy]
        ranks = ["ft.svd_rank_linear=8", "ft.svd_rank_conv2d=8"]
        assert main([*arguments, "--device", "cpu", "--set", *overrides, *ranks]) == 0
        assert save.is_file()


def test_a_second_run_in_the_same_folder_keeps_the_records_of_the_first(workspace):
    assert main(workspace.train_arguments("checkpoints/salt.pth")) == 0
    first = (workspace.folder / "checkpoints" / "results.json").read_bytes()
    assert main(workspace.train_arguments("checkpoints/lora.pth", "--training_strategy", "lora")) == 0
    assert (workspace.folder / "checkpoints" / "results.json").read_bytes() == first
    second = json.loads((workspace.folder / "checkpoints" / "lora" / "results.json").read_text())
    assert second["method"] == "lora"
    assert (workspace.folder / "checkpoints" / "lora.pth").is_file()


def test_a_finished_run_is_not_overwritten(workspace, capsys):
    assert main(workspace.train_arguments()) == 0
    before = (workspace.folder / "run" / "model.safetensors").read_bytes()
    assert "holds a finished run" in refused(capsys, workspace.train_arguments())
    assert (workspace.folder / "run" / "model.safetensors").read_bytes() == before


def test_the_resolved_config_alone_repeats_the_run(workspace):
    assert main(workspace.train_arguments("a/m.safetensors", "--training_strategy", "lora", "--seed", "3")) == 0
    again = ["--model_config", str(workspace.folder / "a" / "config.yaml"), "--device", "cpu"]
    assert main([*again, "--save_path", str(workspace.folder / "b" / "m.safetensors")]) == 0
    first, second = (load_file(workspace.folder / name / "m.safetensors") for name in "ab")
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("weights", ["model.safetensors", "best_val.safetensors"])
def test_testing_a_checkpoint_gives_the_runs_own_numbers(workspace, weights):
    assert main(workspace.train_arguments("run/model.safetensors", "--training_strategy", "lora")) == 0
    folder = workspace.folder / "run"
    assert main(["test", "--checkpoint", str(folder / weights), "--device", "cpu"]) == 0
    again = json.loads((folder / f"{Path(weights).stem}_set_test" / "results.json").read_text())
    results = json.loads((folder / "results.json").read_text())["last" if weights.startswith("model") else "best_val"]
    assert again["method"] == "lora"
    assert again["ranks"] == {"r_lora": 2, "rank_pattern": {}}
    for size in ("img_size", "native"):
        assert again[size]["dice"]["mean"] == pytest.approx(results[size]["dice"]["mean"], abs=1e-6)


def test_strategy_none_evaluates_without_training(workspace):
    assert main(workspace.train_arguments("run/m.safetensors", "--training_strategy", "none")) == 0
    results = json.loads((workspace.folder / "run" / "results.json").read_text())
    assert results["best_val"] is None
    assert results["trainable"] == 0
    assert results["last"]["img_size"]["n"] == 2


def test_several_labels_are_samples_and_results_of_their_own(workspace, draw_dataset, capsys):
    data = workspace.folder / "two"
    draw_dataset(data, {"train": 2, "val": 1, "test": 2}, labels=2)
    workspace.data_config.write_text(
        f"data: {{root_path: {data}, label_list: [0, 1, 2], label_names: [Background, Bar, Rod]}}\n"
    )
    assert main(workspace.train_arguments()) == 0
    results = json.loads((workspace.folder / "run" / "results.json").read_text())["last"]
    assert results["native"]["n"] == 4
    assert {label: values["native"]["n"] for label, values in results["labels"].items()} == {"Bar": 2, "Rod": 2}
    means = [values["native"]["dice"]["mean"] for values in results["labels"].values()]
    assert results["native"]["dice"]["mean"] == pytest.approx(np.mean(means))
    printed = capsys.readouterr().out
    for label, mean in zip(results["labels"], means, strict=True):
        assert re.search(
            rf"^  {label}: Dice .*; at the images' own size Dice {mean:.4f}, HD95 .*; n 2, ", printed, re.MULTILINE
        )


def test_merged_sam_export_loads_strictly_in_the_untouched_package(workspace):
    from functools import partial

    from segment_anything.modeling import ImageEncoderViT

    assert main(workspace.train_arguments()) == 0
    output = workspace.folder / "sam.safetensors"
    checkpoint = workspace.folder / "run" / "model.safetensors"
    assert main(["export", "--checkpoint", str(checkpoint), "--output", str(output)]) == 0
    state = load_file(output)
    assert all(key.startswith(SAM_PREFIXES) for key in state)
    stock = ImageEncoderViT(
        img_size=32, patch_size=8, embed_dim=128, depth=4, num_heads=4, out_chans=128, window_size=8,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6), use_rel_pos=True, global_attn_indexes=(2,),
    )  # fmt: skip
    prefix = "image_encoder."
    stock.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}, strict=True)
    from model import load_trained

    trained, _ = load_trained(checkpoint)
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(stock.eval()(x), trained.image_encoder(x), atol=1e-4)


@pytest.fixture
def based(workspace):
    """The workspace with base weights in a file of the official format."""
    config = load_config(workspace.model_config, None, (), "none")
    state = {k: v for k, v in build_model(config).state_dict().items() if k.startswith(SAM_PREFIXES)}
    base = workspace.folder / "base.safetensors"
    save_file(state, base)
    text = yaml.safe_load(workspace.model_config.read_text())
    del text["sam"]["weights"]
    workspace.model_config.write_text(yaml.safe_dump(text))
    return workspace, base


def test_the_weights_file_of_an_adapted_model_is_small_and_needs_its_base(based, capsys):
    workspace, base = based
    assert main(workspace.train_arguments("run/m.safetensors", "--pretrained_path", str(base))) == 0
    weights = workspace.folder / "run" / "m.safetensors"
    assert not any(key.endswith((".weight", ".U", ".Vh")) and ".attn." in key for key in load_file(weights))
    base.write_bytes(base.read_bytes() + b" ")
    error = refused(capsys, ["test", "--checkpoint", weights, "--device", "cpu"])
    assert "was trained on other base weights" in error


def test_params_of_vit_h_takes_seconds_and_no_weights():
    arguments = ["params", "--model_config", "configs/table1/salt_256.yaml", "--json", "--set", "sam.sam_type=huge"]
    done = subprocess.run(
        [sys.executable, "main.py", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(done.stdout)["modules"]["image_encoder"]["total"] > 600_000_000
