"""The sweep: every run once, what is done skipped, failures passed over, signals handed on."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from lock_holder import held

from experiments import sweep
from experiments.sweep_plan import read_plan, sweep_runs
from main import main
from utils.config import load_config
from utils.config.resolve import PROFILES

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def plan(workspace):
    """Writes a plan of two rows, one dataset and two seeds; plan(key=value) overrides its keys."""

    def write(**changes):
        config = str(workspace.model_config)
        rows = {
            "lora": {"model_config": config, "overrides": ["strategy=lora"]},
            "none": {"model_config": config, "overrides": ["strategy=none"]},
        }
        content = {
            "output": str(workspace.folder / "runs"),
            "seeds": [0, 1],
            "datasets": {"bars": str(workspace.data_config)},
            "rows": rows,
            "overrides": ["training.num_epochs=1"],
        }
        path = workspace.folder / "plan.yaml"
        path.write_text(yaml.safe_dump({**content, **changes}))
        return path

    return write


def run(path, *more):
    return main(["sweep", "--plan", str(path), "--device", "cpu", *more])


def test_every_run_once_and_then_none(plan, workspace, capfd, caplog):
    path = plan()
    assert run(path, "--dry_run") == 0
    assert capfd.readouterr().out.splitlines() == [
        "lora/bars/0: to do",
        "none/bars/0: to do",
        "lora/bars/1: to do",
        "none/bars/1: to do",
    ]
    assert run(path, "--only", "*/1") == 0
    assert run(path, "--list") == 0
    assert capfd.readouterr().out.splitlines()[0] == "lora/bars/0"
    states = {each.name: each.state for each in sweep_runs(read_plan(path))}
    assert states == {"lora/bars/0": "to do", "none/bars/0": "to do", "lora/bars/1": "done", "none/bars/1": "done"}
    caplog.set_level("INFO")
    assert run(path) == 0
    assert "4 runs: 2 done, 0 failed, 2 left\n" in caplog.text
    assert re.search(r"3 done, 0 failed, 1 left, about 0:\d\d:\d\d\n", caplog.text)
    assert "4 done, 0 failed, 0 left\n" in caplog.text
    files = {file: file.stat().st_mtime_ns for file in (workspace.folder / "runs").rglob("results.json")}
    assert len(files) == 4
    assert run(path) == 0
    assert files == {file: file.stat().st_mtime_ns for file in files}
    folder = workspace.folder / "runs" / "lora" / "bars" / "1"
    results = json.loads((folder / "results.json").read_text())
    assert (results["method"], results["seed"], results["epochs"]) == ("lora", 1, 1)
    assert "epoch 1/1: loss" in (folder / "log.txt").read_text()
    assert not (folder / "lock").exists()
    assert (folder / "row.txt").read_text() == "lora\n"


def test_a_damaged_run_is_named_and_not_counted_as_done(plan, workspace, capfd):
    path = plan(seeds=[0])
    damaged = workspace.folder / "runs" / "none" / "bars" / "0"
    damaged.mkdir(parents=True)
    (damaged / "results.json").write_text("{")
    assert run(path, "--only", "none/*") == 1
    out = capfd.readouterr()
    assert f"failed: none/bars/0: {damaged / 'results.json'}: cannot be read" in out.out
    assert f"remove {damaged} to run it again" in out.out


@pytest.mark.slow
def test_the_rows_of_a_plan_are_the_rows_of_the_table(plan, workspace):
    config = str(workspace.model_config)
    rows = {"lr_3e-3": "training.lr=3e-3", "lr_1e-2": "training.lr=1e-2", "dice_only": "training.loss=dice"}
    path = plan(seeds=[0], rows={name: {"model_config": config, "overrides": [text]} for name, text in rows.items()})
    assert run(path) == 0
    assert main(["table", "--runs", str(workspace.folder / "runs")]) == 0
    with (workspace.folder / "runs" / "table" / "table.csv").open() as file:
        assert {row["method"] for row in csv.DictReader(file)} == set(rows)


def test_a_failure_is_told_by_the_last_attempt_alone(plan, workspace, capfd, monkeypatch):
    log = workspace.folder / "runs" / "lora" / "bars" / "0" / "log.txt"
    log.parent.mkdir(parents=True)
    log.write_text("error: the disk was full\n")
    monkeypatch.setattr(sweep, "_run", lambda run, device: -9)
    assert run(plan(seeds=[0]), "--only", "lora/*") == 1
    assert f"failed: lora/bars/0: exit status -9; see {log}" in capfd.readouterr().out


def test_a_failure_is_passed_over_listed_and_tried_again(plan, workspace, capfd):
    broken = workspace.data / "images" / "train0.png"
    content = broken.read_bytes()
    broken.write_bytes(b"no image")
    path = plan(seeds=[0])
    assert run(path) == 1
    out = capfd.readouterr()
    assert "failed: lora/bars/0: " in out.out
    assert "train0.png: not a readable image" in out.out
    assert "error: 1 of 2 runs failed" in out.err
    assert (workspace.folder / "runs" / "none" / "bars" / "0" / "results.json").is_file()
    broken.write_bytes(content)
    assert run(path) == 0


@pytest.mark.parametrize(
    ("changes", "more", "message"),
    [
        ({"seeds": []}, (), "seeds"),
        ({"rows": {"a": {"model_confg": "x"}}}, (), "did you mean rows.a.model_config"),
        ({"rows": {"a": {"model_config": "nowhere.yaml"}}}, (), "nowhere.yaml: cannot be read"),
        ({"overrides": ["training.num_epochs=0"]}, (), "training.num_epochs"),
        ({}, ("--only", "salt/*"), "--only salt/*: matches no run, such as lora/bars/0"),
    ],
)
def test_a_wrong_plan_starts_nothing(plan, workspace, capfd, changes, more, message):
    assert run(plan(**changes), *more) == 2
    assert message in capfd.readouterr().err
    assert not (workspace.folder / "runs").exists()


def test_a_row_may_have_fewer_datasets(plan, workspace):
    config, data = str(workspace.model_config), str(workspace.data_config)
    rows = {"a": {"model_config": config, "datasets": ["x"]}, "b": {"model_config": config}}
    path = plan(rows=rows, datasets={"x": data, "y": data}, seeds=[0])
    assert [each.name for each in sweep_runs(read_plan(path))] == ["a/x/0", "b/x/0", "b/y/0"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_stops_the_run_after_a_checkpoint_and_the_sweep_goes_on_with_it(plan, workspace, capfd, number):
    path = plan(seeds=[0], overrides=["training.num_epochs=500"])
    command = [sys.executable, "main.py", "sweep", "--plan", str(path), "--device", "cpu", "--only", "lora/*"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    metrics = workspace.folder / "runs" / "lora" / "bars" / "0" / "metrics.jsonl"
    for _ in range(600):
        if metrics.is_file() and metrics.stat().st_size:
            break
        time.sleep(0.1)
    os.kill(process.pid, number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 3, error
    assert "stopped by a signal in lora/bars/0; the same command continues it" in error
    done = len(metrics.read_text().splitlines())
    assert sweep_runs(read_plan(path))[0].state == "unfinished"
    assert done >= 1
    path = plan(seeds=[0], overrides=[f"training.num_epochs={done + 2}"])
    assert run(path, "--only", "lora/*") == 1  # it resumes, and not with another config
    assert f"training.num_epochs was 500, is {done + 2}" in capfd.readouterr().out


def test_a_run_in_progress_is_left_to_its_process(plan, workspace, caplog):
    path = plan(seeds=[0])
    folder = workspace.folder / "runs" / "none" / "bars" / "0"
    with held(folder / "lock"), caplog.at_level("INFO"):
        assert run(path, "--only", "none/*") == 0
    assert "another process runs it" in caplog.text
    assert not (folder / "results.json").exists()


def test_a_run_whose_plan_has_changed_is_not_done_and_replaced_only_by_force(plan, workspace, capfd):
    first = plan(seeds=[0])
    assert run(first, "--only", "lora/*") == 0
    folder = workspace.folder / "runs" / "lora" / "bars" / "0"
    (folder / "notes.txt").write_text("mine")
    before = (folder / "results.json").read_bytes()
    path = plan(seeds=[0], overrides=["training.num_epochs=1", "training.lr=0.005"])
    assert run(path, "--only", "lora/*", "--dry_run") == 0
    assert capfd.readouterr().out == "lora/bars/0: changed\n"
    assert run(path, "--only", "lora/*") == 1
    assert "training.lr was 0.001, is 0.005; " in capfd.readouterr().out
    assert (folder / "results.json").read_bytes() == before
    assert run(path, "--only", "lora/*", "--force") == 0
    assert "lr: 0.005" in (folder / "config.yaml").read_text()
    assert (folder / "notes.txt").read_text() == "mine"
    assert run(path, "--only", "lora/*", "--dry_run") == 0
    assert capfd.readouterr().out == "lora/bars/0: done\n"
    path = plan(seeds=[0], overrides=["training.num_epochs=2", "training.lr=0.005"])  # it goes on
    assert run(path, "--only", "lora/*", "--dry_run") == 0
    assert capfd.readouterr().out == "lora/bars/0: unfinished\n"


def test_the_plan_of_table_1_names_every_row_of_the_paper():
    plan = read_plan(ROOT / "configs" / "table1" / "sweep.yaml")
    files = {path.stem for path in (ROOT / "configs" / "table1").glob("*.yaml")} - {
        "sweep",
        "sweep_released",
        "miniature",
        "nano",
        "salt_256_detail",  # beyond the paper
        "sam2_salt_256_detail",
    }
    assert set(plan.rows) == files
    assert all(row.model_config_path == Path(f"configs/table1/{name}.yaml") for name, row in plan.rows.items())
    assert len(sweep_runs(plan)) == 3 * (13 * 5 + 5 * 2)


def test_the_plan_beyond_the_paper_names_every_config_and_no_row_of_the_papers():
    beyond = ROOT / "configs" / "table1" / "beyond"
    plan, paper = read_plan(beyond / "sweep.yaml"), read_plan(ROOT / "configs" / "table1" / "sweep.yaml")
    assert set(plan.rows) == {path.stem for path in beyond.glob("*.yaml")} - {"sweep"}
    assert not set(plan.rows) & set(paper.rows)
    assert (plan.output, plan.datasets, plan.overrides) == (paper.output, paper.datasets, paper.overrides)
    for name, row in plan.rows.items():
        assert load_config(row.model_config_path).strategy == name.partition("_")[0]


def test_the_released_plan_sets_every_option_of_the_profile(workspace):
    plan = read_plan(ROOT / "configs" / "table1" / "sweep_released.yaml")
    for row in plan.rows.values():
        config = load_config(row.model_config_path, workspace.data_config, plan.overrides)
        for path, released in PROFILES["released"].items():
            section, key = path
            assert getattr(getattr(config, section), key) == released


@pytest.mark.slow
def test_the_miniature_of_table_1_from_sweep_to_page(workspace):
    """Every row's architecture on generated images, one seed, two epochs, by the real commands."""
    data = workspace.folder / "miniature"
    prepare = ["prepare", "synthetic", "--output", str(data), "--count", "18", "--size", "128"]
    assert main(prepare) == 0
    text = (ROOT / "configs" / "data" / "miniature.yaml").read_text()
    data_config = workspace.folder / "miniature.yaml"
    data_config.write_text(text.replace("root_path: data/miniature", f"root_path: {data}"))
    content = yaml.safe_load((ROOT / "configs" / "table1" / "miniature.yaml").read_text())
    content |= {"output": str(workspace.folder / "runs"), "datasets": {"miniature": str(data_config)}, "seeds": [0]}
    path = workspace.folder / "plan.yaml"
    path.write_text(yaml.safe_dump(content))
    command = [sys.executable, "main.py"]
    swept = subprocess.run([*command, "sweep", "--plan", str(path), "--device", "cpu"], cwd=ROOT, check=False)
    assert swept.returncode == 0
    assert [each.state for each in sweep_runs(read_plan(path))] == ["done"] * 18
    tabled = subprocess.run([*command, "table", "--runs", str(workspace.folder / "runs")], cwd=ROOT, check=False)
    assert tabled.returncode == 0
    report = workspace.folder / "runs" / "table"
    page = (report / "index.html").read_text()
    for name in (
        "nano U-Net",
        "nano UNETR",
        "nano SegNet",
        "nano SAM, SALT 16",
        "nano SAM2, SALT 16",
        "nano SAM, S-SAM",
    ):
        assert name in page
    figures = {figure.stem.split("_")[0] for figure in (report / "figures").glob("*.png")}
    assert figures == {"qualitative", "curves", "ranks", "spectra"}


def test_a_run_that_another_process_has_finished_meanwhile_is_no_failure(plan, monkeypatch, caplog):
    real = sweep._run
    monkeypatch.setattr(sweep, "_run", lambda run, device: real(run, device) or 1)  # ours came second, and was refused
    caplog.set_level("INFO")
    assert run(plan(seeds=[0]), "--only", "none/*") == 0
    assert "none/bars/0: another process runs it" in caplog.text


def test_a_stopped_run_stops_the_sweep_though_its_lock_is_not_free_yet(plan, monkeypatch, capfd):
    """Its data workers may hold the lock a moment longer; the sweep once went on with the next run."""
    monkeypatch.setattr(sweep, "_run", lambda run, device: 3)
    answers = iter([False, True])
    monkeypatch.setattr(sweep, "is_locked", lambda lock: next(answers))
    assert run(plan(seeds=[0])) == 3
    assert "stopped by a signal in lora/bars/0" in capfd.readouterr().err


def test_the_override_of_a_dataset_counts_before_the_plans_and_a_rows_before_both(plan, workspace, capsys):
    config = str(workspace.model_config)
    rows = {
        "plain": {"model_config": config},
        "own": {"model_config": config, "overrides": ["training.num_epochs=5"]},
        "both": {"model_config": config, "overrides": ["training.num_epochs=5"]},
    }
    rows["both"]["dataset_overrides"] = {"again": ["training.num_epochs=7"]}
    datasets = dict.fromkeys(("bars", "again"), str(workspace.data_config))
    path = plan(rows=rows, datasets=datasets, seeds=[0], dataset_overrides={"again": ["training.num_epochs=3"]})
    epochs = {each.name: each.config().training.num_epochs for each in sweep_runs(read_plan(path))}
    assert epochs == {"plain/bars/0": 1, "own/bars/0": 5, "plain/again/0": 3, "own/again/0": 5} | {
        "both/bars/0": 5,
        "both/again/0": 7,
    }
    assert run(plan(dataset_overrides={"agian": []}), "--dry_run") == 2
    assert "dataset_overrides: no dataset agian; the plan has bars" in capsys.readouterr().err


def test_a_row_may_have_fewer_seeds_than_the_plan(plan, workspace, capsys):
    config = str(workspace.model_config)
    rows = {"all": {"model_config": config}, "one": {"model_config": config, "seeds": [1]}}
    found = [each.name for each in sweep_runs(read_plan(plan(rows=rows, seeds=[0, 1])))]
    assert found == ["all/bars/0", "all/bars/1", "one/bars/1"]
    assert run(plan(rows=rows, seeds=[0]), "--dry_run") == 2
    assert "row one: no seed 1; the plan has 0" in capsys.readouterr().err


def test_a_row_may_start_from_the_folder_of_a_run(plan, workspace):
    assert run(plan(seeds=[0]), "--only", "lora/*") == 0
    base = workspace.folder / "runs" / "lora" / "bars" / "0"
    row = {"model_config": str(workspace.model_config), "pretrained_path": str(base)}
    path = plan(seeds=[0], rows={"next": row | {"overrides": ["strategy=none", "sam.weights=pretrained"]}})
    assert run(path) == 0
    assert [each.state for each in sweep_runs(read_plan(path))] == ["done"]
