"""The command `table` as a user calls it."""

import subprocess
import sys
from pathlib import Path

import pytest

from main import main
from utils.config import load_config

ROOT = Path(__file__).resolve().parents[2]
WRITTEN = {"table.md", "table.tex", "table.csv", "index.html"}


def test_real_runs_become_tables_page_and_figures(workspace):
    """Two methods, two seeds, and the command in a process of its own."""
    for strategy in ("salt", "none"):
        for seed in ("0", "1"):
            arguments = workspace.train_arguments(f"runs/{strategy}_{seed}/m.safetensors", "--seed", seed)
            assert main([*arguments, "--training_strategy", strategy]) == 0
    runs = workspace.folder / "runs"
    assert main(["test", "--checkpoint", str(runs / "salt_0" / "m.safetensors"), "--device", "cpu"]) == 0
    command = [sys.executable, "main.py", "table", "--runs", str(runs)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "weights after the last epoch (last), at the model's image size" in done.stdout
    output = runs / "table"
    assert {path.name for path in output.iterdir()} >= WRITTEN
    names = {path.name for path in (output / "figures").iterdir()}
    for name in ("qualitative", "curves_set", "spectra"):
        assert {f"{name}.png", f"{name}.pdf"} <= names
    markdown = (output / "table.md").read_text(encoding="utf-8")
    assert "| nano SAM, SALT 2 (top 8, neck 4, random base weights) | top 8, neck 4, LoRA 2 |" in markdown
    assert "| nano SAM, no training (random base weights) |" in markdown
    assert markdown.count("2 seeds") == 4
    assert "1 results.json written by the test command are no runs" in markdown
    # A second call finds its own output in the folder and takes nothing of it for a run.
    assert main(["table", "--runs", str(runs)]) == 0
    assert (output / "table.md").read_text(encoding="utf-8") == markdown


def test_weights_and_size_choose_the_table(maker, tmp_path, capsys):
    maker.run("salt_256", dice=[0.6])
    options = ["--weights", "best_val", "--size", "native", "--output", str(tmp_path / "out")]
    assert main(["table", "--runs", str(maker.root), *options]) == 0
    assert "best_val" in capsys.readouterr().out
    markdown = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert "Weights of the best epoch (best_val), at the images' own size." in markdown
    assert "**0.550**" in markdown
    for other in ("0.600", "0.500", "0.650"):
        assert other not in markdown


@pytest.mark.parametrize("arguments", [["--runs", "absent"], ["--runs", "."]])
def test_nothing_to_gather_is_one_line(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["table", *arguments]) == 1
    assert capsys.readouterr().err.strip().count("\n") == 0
    assert not (tmp_path / "table").exists()


def test_bad_options_are_refused(capsys):
    assert main(["table"]) == 2
    assert main(["table", "--runs", ".", "--weights", "both"]) == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "sam_type", "grid"),
    [("drive", "base", [(700, 250), (500, 250), (200, 200)]), ("nano_drive", "nano", [(96, 96), (64, 64), (32, 32)])],
)
def test_the_ablations_rank_grid_loads_and_its_ranks_exist(name, sam_type, grid):
    from model import build_model
    from networks.strategies import parameter_counts

    percents = {}
    for top, neck in grid:
        for r_lora in (4, 256) if sam_type == "base" else (2, 32):
            ranks = [f"ft.svd_rank_linear={top}", f"ft.svd_rank_conv2d={neck}", f"ft.r_lora={r_lora}"]
            config = load_config(ROOT / "configs" / "ablation" / f"{name}.yaml", None, ranks)
            assert (config.strategy, config.sam.sam_type) == ("salt", sam_type)
            counts = parameter_counts(build_model(config, counted_only=True))
            percents[top, r_lora] = round(counts["percent"], 2)
    if sam_type == "base":  # the two corners that the paper gives
        assert (percents[500, 4], percents[200, 256]) == (0.46, 5.84)
    assert len(set(percents.values())) == len(percents)
