"""All metrics, whole and inside the field of view, from the command line to every file and the table."""

import csv
import json
import shutil
from typing import get_args

import numpy as np
import pytest
from PIL import Image

import test as evaluation
from evaluation import workers
from evaluation.names import METRICS
from evaluation.results import read_per_image, read_run_results
from main import main
from utils.config.options import MetricName

NAMES = get_args(MetricName)
ALL = f"evaluation.metrics=[{','.join(NAMES)}]"


def add_fov(data, value=255):
    """A field of view for every image: all but a margin of 5 pixels."""
    for path in (data / "images").iterdir():
        inside = np.zeros(Image.open(path).size[::-1], np.uint8)
        inside[5:-5, 5:-5] = value
        (data / "fov").mkdir(exist_ok=True)
        Image.fromarray(inside).save(data / "fov" / path.name)


def train(workspace, *more, strategy="none"):
    arguments = workspace.train_arguments("run/model.safetensors", "--training_strategy", strategy, *more)
    return main(arguments)


def test_every_file_and_the_table_hold_all_metrics_in_both_regions(workspace, no_pictures, capsys):
    add_fov(workspace.data)
    assert train(workspace, "--set", ALL, "training.num_epochs=1", strategy="lora") == 0
    run = workspace.folder / "run"
    printed = capsys.readouterr().out
    assert printed.count("inside the field of view: Dice ") == 4
    assert all(metric.name in printed for metric in METRICS.values())

    results, images = read_run_results(run), read_per_image(run)
    for size, suffix in (("img_size", ""), ("native", "_native")):
        for region in ("whole", "fov"):
            scores = getattr(results.last, size).region(region)
            for name in NAMES:
                column = name + suffix + ("_fov" if region == "fov" else "")
                values = [image[column] for image in images["last"].values() if column in image]
                measure = scores.measure(name)
                assert (measure is None) == (not values)
                if measure:
                    assert measure.mean == pytest.approx(np.mean(values), abs=1e-5)

    capsys.readouterr()
    options = ["--columns", "dice,cldice,sensitivity", "--region", "fov"]
    assert main(["table", "--runs", str(run), "--output", str(workspace.folder / "t"), *options]) == 0
    assert "(last), at the model's image size, inside the field of view" in capsys.readouterr().out
    shown = f"{results.last.img_size.fov.measure('sensitivity').mean:.3f}"
    for name in ("table.md", "table.tex", "index.html"):
        text = (workspace.folder / "t" / name).read_text(encoding="utf-8")
        assert "clDice (higher is better)" in text
        assert "HD95 in pixels" not in text
        assert shown in text.partition("Sensitivity (higher is better)")[2]
    [line] = csv.DictReader((workspace.folder / "t" / "table.csv").open(encoding="utf-8"))
    assert float(line["set_sensitivity_fov"]) == pytest.approx(results.last.img_size.fov.measure("sensitivity").mean)

    checkpoint = ["--checkpoint", str(run / "model.safetensors"), "--device", "cpu"]
    assert main(["test", *checkpoint]) == 0
    [path] = run.glob("model_*/results.json")
    assert json.loads(path.read_text())["native"]["fov"]["others"].keys() == set(NAMES) - {"dice", "hd95"}
    assert "inside the field of view: Dice " in capsys.readouterr().out


def test_the_default_is_dice_and_hd95_of_the_whole_image(workspace, no_pictures, capsys):
    assert train(workspace) == 0
    last = json.loads((workspace.folder / "run" / "results.json").read_text())["last"]
    assert set(last["native"]) == {"dice", "hd95", "n", "n_empty"}
    printed = capsys.readouterr().out.splitlines()
    assert len([line for line in printed if "Dice" in line]) == 2
    assert not [line for line in printed if line.startswith("  ")]
    assert main(["table", "--runs", str(workspace.folder / "run"), "--region", "fov"]) == 1
    assert "no run has scores inside the field of view" in capsys.readouterr().err
    assert main(["table", "--runs", str(workspace.folder / "run"), "--columns", "dice,iou"]) == 0
    assert "without iou" in capsys.readouterr().out


def test_worker_processes_give_the_same_scores(workspace, no_pictures, monkeypatch):
    add_fov(workspace.data)
    found, pools = [], []
    pool = workers.ProcessPoolExecutor
    monkeypatch.setattr(workers, "ProcessPoolExecutor", lambda *a, **k: pools.append(a) or pool(*a, **k))
    for cores in (1, 2):
        monkeypatch.setattr(evaluation, "usable_cores", lambda cores=cores: cores)
        assert train(workspace, "--set", ALL) == 0
        found.append(last_scores(workspace.folder / "run"))
        shutil.rmtree(workspace.folder / "run")
    assert pools == [(2,)]
    assert found[0] == found[1]


def last_scores(run):
    return {key: value for key, value in read_run_results(run).last.model_dump().items() if key != "epoch"}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing", r"test0.png: no field-of-view file test0"),
        ("empty", r"fov/test0.png: no pixel is inside the field of view"),
        ("size", r"fov/test0.png: mask of 3 x 4 pixels"),
        ("values", r"fov/test0.png: the mask holds values 0, 7"),
    ],
)
def test_a_bad_field_of_view_stops_the_run_before_it_starts(workspace, capsys, fault, message):
    add_fov(workspace.data)
    path = workspace.data / "fov" / "test0.png"
    if fault == "missing":
        path.unlink()
    else:
        values = {"empty": np.zeros((48, 40)), "size": np.ones((4, 3)), "values": np.eye(48, 40) * 7}[fault]
        Image.fromarray(values.astype(np.uint8)).save(path)
    assert train(workspace) == 1
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error


def test_unknown_metrics_are_refused(workspace, capsys):
    assert train(workspace, "--set", "evaluation.metrics=[dice,dize]") == 2
    assert "evaluation.metrics" in capsys.readouterr().err
    assert main(["table", "--runs", ".", "--columns", "dice,dize"]) == 2
    assert "must join some of dice, iou" in capsys.readouterr().err
