"""One line and an exit status for every error, also for one raised in a data loader's worker."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from main import main

ROOT = Path(__file__).resolve().parents[2]
# No room in the cache: it is the loader that first reads the pixels.
WITHOUT_CACHE = """import sys
from datasets.cache import ImageCache
from main import main
ImageCache.fitting = lambda *_: 0
sys.exit(main(sys.argv[1:]))
"""


def spoil_with_16_bits(images):
    """The window of 8-bit images would turn it white: a ConfigError when it is loaded."""
    for path in images:
        Image.fromarray(np.full((48, 40), 40000, np.uint16)).save(path)
    return 2, "data_transforms: a_max (200) would turn 100% of this 16-bit image white; set it"


def spoil_by_truncation(images):
    """Header and size are readable, pixels are not: a UserError when it is loaded."""
    for path in images:
        path.write_bytes(path.read_bytes()[:60])
    return 1, "not a readable image (image file is truncated); replace the file"


@pytest.mark.parametrize("spoil", [spoil_with_16_bits, spoil_by_truncation])
@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_a_data_loaders_worker_is_one_line_with_its_own_status(workspace, spoil, workers):
    """And the process ends: it does not wait for workers that ignore stop signals."""
    images = sorted((workspace.data / "images").glob("train*.png"))
    status, message = spoil(images)
    more = ["--set", f"data.num_workers={workers}", "data_transforms.a_max=200"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_CACHE, *workspace.train_arguments("run/m.safetensors", *more)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    last = done.stderr.strip().splitlines()[-1]
    assert any(last.startswith(f"error: {path}: ") for path in images), done.stderr
    assert message in last
    assert "Traceback" not in done.stderr
    assert done.returncode == status


def test_a_full_gpu_is_one_line_that_says_what_takes_less(workspace, monkeypatch, capsys):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 23.5 GiB.\nSee docs.")

    monkeypatch.setattr("experiments.experiment.train_and_evaluate", full)
    assert main(workspace.train_arguments("run/m.safetensors")) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: CUDA out of memory. To train in less: --set training.accumulate_steps, ")
    with pytest.raises(torch.OutOfMemoryError):
        main([*workspace.train_arguments("run/m.safetensors"), "--debug"])
