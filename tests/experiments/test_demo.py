"""The demo and the weights that ship: adaptation of nano SAM is real."""

import subprocess
import sys
from pathlib import Path

from PIL import Image

from checkpointing.tensor_files import read_state_dict
from experiments.demo import NANO_WEIGHTS
from main import main
from model import build_model
from prompt_adapted_segment_anything.load import sam_type_of
from utils.config import load_config

ROOT = Path(__file__).resolve().parents[2]


def test_the_shipped_weights_are_a_small_official_format_file_that_loads_at_any_size():
    path = ROOT / NANO_WEIGHTS
    assert path.stat().st_size <= 6_000_000
    state = read_state_dict(path)
    assert sam_type_of(state) == "nano"
    for size in (64, 256, 512):
        overrides = [f"sam.img_size={size}"]
        config = load_config(ROOT / "configs/model/nano_salt.yaml", None, overrides, "none", path)
        model = build_model(config)
        assert set(state) == {key for key in model.state_dict() if not key.startswith("text_")}


def test_the_demo_ends_with_a_table_and_a_picture_and_salt_helps_within_three_epochs(tmp_path):
    arguments = ["demo", "--output", str(tmp_path / "demo"), "--epochs", "3"]
    done = subprocess.run(
        [sys.executable, "main.py", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    header, before, after, overlay = done.stdout.strip().splitlines()
    assert header.split()[-5:] == ["HD95", "px", "trained", "of", "all"]
    gain = float(after.removeprefix("after SALT").split()[0]) - float(before.removeprefix("before").split()[0])
    assert gain > 0.1, done.stdout
    picture = Path(overlay.rsplit(": ", 1)[1])
    assert Image.open(picture).size[0] > 4 * 256


def test_the_demo_replaces_nothing_but_an_earlier_demo(tmp_path, capsys):
    (tmp_path / "salt").mkdir()
    (tmp_path / "salt" / "mine.txt").write_text("keep")
    assert main(["demo", "--output", str(tmp_path)]) == 1
    assert "is not an earlier demo's" in capsys.readouterr().err
    assert (tmp_path / "salt" / "mine.txt").read_text() == "keep"
