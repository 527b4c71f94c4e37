"""A user's way with data of their own: three commands, prepare, train, predict, with nothing to type but paths."""

import json
import os
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from main import main

ROOT = Path(__file__).resolve().parents[1]
NAMES = [f"Image_{i:02d}{eye}" for i in range(1, 3) for eye in "LR"]
# What keeps the run short.
SHORT = ["--device", "cpu", "--set", "training.num_epochs=1", "sam.img_size=32", "training.batch_size=2"]
RED, BLUE = (255, 0, 0), (0, 0, 255)


def run(arguments, capsys):
    """Runs a command; returns what it printed."""
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def bars(seed, *colours):
    """An image (40, 48, 3) with a bar of each colour, and the bars alone on black."""
    rng = np.random.default_rng(seed)
    image, bars = rng.integers(0, 60, (40, 48, 3), dtype=np.uint8), np.zeros((40, 48, 3), np.uint8)
    for i, colour in enumerate(colours):
        row = int(rng.integers(2, 12)) + 18 * i
        image[row : row + 6, 4:-4] = 150 + 40 * i
        bars[row : row + 6, 4:-4] = colour
    return Image.fromarray(image), bars


def two_observers(root):
    """CHASE_DB1's files, 1-bit masks, in a folder for each child."""
    for i, name in enumerate(NAMES):
        folder = root / "eyes" / f"child {name[6:8]}"
        folder.mkdir(parents=True, exist_ok=True)
        image, mask = bars(i, (255,) * 3)
        image.save(folder / f"{name}.jpg")
        for observer in ("1stHO", "2ndHO"):
            Image.fromarray(mask[..., 0] > 0).save(folder / f"{name}_{observer}.png")
    return ["folder", "--images", root / "eyes"], {0, 255}


def two_colours(root):
    """Masks in colour beside the images, in a folder of their own."""
    for folder in ("scans", "labels"):
        (root / folder).mkdir(parents=True)
    for i, name in enumerate(NAMES):
        image, mask = bars(i, RED, BLUE)
        image.save(root / "scans" / f"{name}.png")
        Image.fromarray(mask).save(root / "labels" / f"{name}.png")
    options = ["--images", root / "scans", "--masks", root / "labels", "--classes", "artery=#ff0000", "vein=#0000ff"]
    return ["folder", *options], {0, 1, 2}


def polygons(root):
    """A COCO file beside its images."""
    (root / "export").mkdir(parents=True)
    images, annotations = [], []
    for i, name in enumerate(NAMES):
        image, mask = bars(i, RED)
        image.save(root / "export" / f"{name}.png")
        rows = np.flatnonzero(mask[..., 0].any(axis=1)).tolist()
        top, bottom = rows[0], rows[-1] + 1
        polygon = [4, top, 44, top, 44, bottom, 4, bottom]
        images.append({"id": i, "file_name": f"{name}.png", "height": 40, "width": 48})
        annotations.append({"id": i, "image_id": i, "category_id": 7, "segmentation": [polygon]})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "vessel"}]}
    (root / "export" / "instances.json").write_text(json.dumps(content))
    return ["coco", "--source", root / "export"], {0, 255}


@pytest.mark.parametrize("draw", [two_observers, two_colours, polygons], ids=lambda draw: draw.__name__)
def test_three_commands(tmp_path, monkeypatch, capsys, draw):
    """Far from the project's folder. The second command is the one that the first printed."""
    monkeypatch.chdir(tmp_path)
    prepare, values = draw(tmp_path)
    printed = run(["prepare", *prepare, "--output", "MINE"], capsys)
    python, program, *train = shlex.split(printed.strip().splitlines()[-1].removeprefix("next: "))
    assert (python, program) == ("python", str(ROOT / "main.py"))
    run([*train, *SHORT], capsys)
    images = next(value for option, value in pairwise(prepare) if option in ("--images", "--source"))
    run(["predict", "--checkpoint", "runs/MINE", "--images", images, "--output", "masks"], capsys)
    masks = [np.asarray(Image.open(path)) for path in Path("masks").rglob(f"{NAMES[0]}.png")]
    assert [mask.shape for mask in masks] == [(40, 48)]
    assert set(np.unique(masks[0]).tolist()) <= values


@pytest.mark.slow
def test_three_commands_as_processes(tmp_path):
    """As a user types them, in the project's folder."""
    prepare, _ = two_observers(tmp_path)

    def process(*words):
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *map(str, words)]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout

    printed = process("main.py", "prepare", *prepare, "--output", tmp_path / "MINE")
    words = shlex.split(printed.strip().splitlines()[-1].removeprefix("next: "))
    process(*words[1:-1], tmp_path / "run" / "model.safetensors", *SHORT)
    process("main.py", "predict", "--checkpoint", tmp_path / "run", "--images", prepare[-1], "--output", tmp_path / "m")
    assert len(list((tmp_path / "m").rglob("*.png"))) == 3 * len(NAMES)
