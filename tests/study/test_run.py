"""What `make table1-nano` runs: in small from learning rates to page, killed and taken up, and with another seed."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from study.run import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("changes", "arguments", "status", "message"),
    [
        ({"seeds": []}, [], 2, "study.yaml: seeds = []"),
        ({}, ["--seeds", "1"], 1, "--seeds 1: is one of the page's own seeds; give another"),
        ({}, ["--seeds", "5"], 1, "claims.csv: cannot be read"),
    ],
)
def test_what_is_wrong_is_one_line(plan, tmp_path, capsys, changes, arguments, status, message):
    assert main(["--plan", str(plan(**changes)), "--page", str(tmp_path / "page"), *arguments]) == status
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_page_alone_takes_what_is_there(plan, study, finish, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("study.page.draw_learning", lambda *_: None)
    for rate, dice in (("0.0003", 0.5), ("0.001", 0.6), ("0.003", 0.55)):
        finish(f"lora_lr{rate}", 0, [dice], part="choice")
    finish("lora", 0, [0.6] * 6)
    assert main(["--plan", str(plan()), "--page", str(tmp_path / "page"), "--page_only"]) == 0
    assert "salt: no learning rate yet" in capsys.readouterr().err
    text = (tmp_path / "page" / "README.md").read_text()
    assert "The page is made from 1 of 12 runs: **unfinished**." in text
    assert "| lora | 0.500 | **0.600** | 0.550 |" in text
    assert "| LoRA | 1,234 (12.3%) | 0.001 |" in text
    assert "| LoRA | 0.600" in text


@pytest.mark.slow
def test_the_study_in_small(plan, workspace, tmp_path):
    """One seed, one epoch, one method at 32 pixels; two seeds would be needed for claims, so these are made up."""
    page = tmp_path / "page"
    of = {"data_config": str(workspace.data_config)}
    short = {
        "overrides": ["training.num_epochs=1"],
        "seeds": [0],
        "first_rates": [1e-3],
        "learning_rates": [1e-3],
        "datasets": {"drive": of | {"validation_images": 1}, "b": of | {"validation_images": 0}},
        "families": {
            "Nano": {
                "none": {"base": "sam", "label": "before", "overrides": ["strategy=none"], "trained": False},
                "lora": {"base": "sam", "label": "LoRA", "overrides": ["strategy=lora"]},
            }
        },
        "variants": {"wide": {"base": "sam", "overrides": ["ft.r_lora=2"], "lr_of": "lora", "datasets": ["drive"]}},
        "tested": ["lora"],
        "ablations": [{"title": "Rank", "rows": {"lora": "1", "wide": "2"}}],
        "cross_set": ["lora"],
    }
    path = plan(**short)
    command = [sys.executable, "-m", "study.run", "--plan", str(path), "--page", str(page)]
    first = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    chosen = tmp_path / "runs" / "choice"
    while not list(chosen.glob("*/drive/0/results.json")):
        assert first.poll() is None
        time.sleep(0.1)
    first.send_signal(signal.SIGTERM)
    assert first.wait() == 3
    kept = {file: file.stat().st_mtime_ns for file in chosen.glob("*/drive/0/results.json")}

    second = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    while not list((tmp_path / "runs" / "final").glob("*/drive/0/config.yaml")):
        assert second.poll() is None
        time.sleep(0.1)
    os.kill(second.pid, signal.SIGKILL)  # the two sweeps live on, as after a crash, and hold their runs
    second.wait()

    third = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert third.returncode == 0, third.stderr
    assert {file: file.stat().st_mtime_ns for file in kept} == kept, "what was done is left alone"
    assert "learning rate of lora: 0.001 (Dice of the images set aside: 0.001: 0." in third.stdout
    text = (page / "README.md").read_text()
    assert "The page is made from 5 of 5 runs." in text
    assert "predictions_1.png" in text
    assert sum(file.stat().st_size for file in page.iterdir()) < 500_000
    with (page / "per_image.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 5 * 2
    own, other = re.search(r"\| drive \| (0\.\d+) \| (0\.\d+) \|\n", text).groups()  # the two sets are the same images
    assert own == other
    tested = (tmp_path / "runs" / "final" / "lora" / "drive" / "0" / "model_set_test").stat().st_mtime_ns
    assert subprocess.run([*command, "--page_only"], cwd=ROOT, check=False).returncode == 0
    assert (tmp_path / "runs" / "final" / "lora" / "drive" / "0" / "model_set_test").stat().st_mtime_ns == tested

    claims = (page / "claims.csv").read_text() + "Nano,lora,none,0.1,0.1,0.1,0.03\nNano,none,none,0.1,0.1,0.1,0.03\n"
    (page / "claims.csv").write_text(claims)
    other = subprocess.run([*command, "--seeds", "5"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert other.returncode == 1, other.stderr  # no row is better than itself
    assert "seed 5: none above none: +0.0000" in other.stdout
    with (page / "other_seeds.csv").open() as file:
        assert [(row["better"], row["worse"], row["seed"]) for row in csv.DictReader(file)] == [
            ("lora", "none", "5"),
            ("none", "none", "5"),
        ]

    plan(**short | {"overrides": ["training.num_epochs=2"]})
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "was trained with another config: training.num_epochs was 1, is 2; remove " in refused.stderr
