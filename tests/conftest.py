"""Shared by all tests: a small dataset in the project's layout, and configs of a nano SAM that trains in seconds."""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Two workers on two cores: more threads than cores make torch slower."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def no_cache_at_home(tmp_path_factory):
    """What the program caches stays out of the user's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SALT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def no_pictures(monkeypatch):
    """Runs draw neither curves nor overlays, which take longer than a tiny model's training."""
    from experiments import experiment, scoring

    monkeypatch.setattr(experiment, "plot_curves", lambda *_: None)
    monkeypatch.setattr(scoring, "save_overlay", lambda *_, **__: None)


@pytest.fixture
def draw_dataset():
    """The function that draws a dataset: see `_draw_dataset`."""
    return _draw_dataset


def _draw_dataset(root: Path, splits: dict[str, int], size: tuple[int, int] = (48, 40), labels: int = 1) -> None:
    """Bright bars on a noisy ground: `splits` images each, masks with values 0..labels (255 for a single label)."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    rows = ["imgs,split"]
    for split, count in splits.items():
        for i in range(count):
            name = f"{split}{i}.png"
            image = rng.integers(0, 60, (*size, 3), dtype=np.uint8)
            mask = np.zeros(size, np.uint8)
            for label in range(1, labels + 1):
                row = int(rng.integers(4, size[0] - 10))
                mask[row : row + 6, 4:-4] = label
                image[row : row + 6, 4:-4] += np.uint8(60 + 60 * label)
            Image.fromarray(image).save(root / "images" / name)
            Image.fromarray(mask * 255 if labels == 1 else mask).save(root / "masks" / name)
            rows.append(f"{name},{split}")
    (root / "data_split.csv").write_text("\n".join(rows) + "\n")


@dataclass
class Workspace:
    """Paths of a dataset and its configs."""

    folder: Path
    data: Path
    data_config: Path
    model_config: Path

    def train_arguments(self, save: str = "run/model.safetensors", *more: str) -> list[str]:
        """Arguments of a short training run."""
        configs = ["--data_config", str(self.data_config), "--model_config", str(self.model_config)]
        return [*configs, "--save_path", str(self.folder / save), "--device", "cpu", *more]


@pytest.fixture
def workspace(tmp_path):
    """A dataset of 4 / 2 / 2 images and a nano SAM at 32 pixels from random weights, 2 epochs."""
    return make_workspace_in(tmp_path)


@pytest.fixture(scope="session")
def make_workspace():
    """The function (folder) -> a workspace in it, for what several tests share."""
    return make_workspace_in


def make_workspace_in(folder: Path) -> Workspace:
    """A dataset of 4 / 2 / 2 images and configs of a nano SAM at 32 pixels from random weights, 2 epochs."""
    data = folder / "set"
    _draw_dataset(data, {"train": 4, "val": 2, "test": 2})
    data_config = folder / "data.yaml"
    data_config.write_text(
        "data_transforms: {use_rotation: true, use_horizontal_flip: true, use_brightness: true}\n"
        f"data: {{root_path: {data}, label_list: [0, 1], label_names: [Background, Bar]}}\n"
    )
    model_config = folder / "model.yaml"
    model_config.write_text(
        "sam: {img_size: 32, sam_type: nano, weights: random}\n"
        "prompts: {text_encoder: learned}\n"
        "training: {lr: 1e-3, batch_size: 2, num_epochs: 2}\n"
        "ft: {svd_rank_linear: 8, svd_rank_conv2d: 4, r_lora: 2}\n"
    )
    return Workspace(folder, data, data_config, model_config)


@pytest.fixture(scope="session")
def make_weights(tmp_path_factory):
    """A function (kind, labels, overrides) -> the path of a weights file, untrained: see `weights_files`."""
    import weights_files

    return lambda kind="sam", *more: weights_files.write_weights(tmp_path_factory.mktemp(kind), kind, *more)


@pytest.fixture(scope="session")
def sam_weights(make_weights):
    """The weights file of a nano SAM of one label, Vein, at 32 pixels."""
    return make_weights()


@pytest.fixture(scope="module")
def chromium():
    """This machine's own headless Chromium, as playwright's Browser."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("no chromium or google-chrome on the PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def warned(caplog):
    """Return the warnings since the last call."""

    def lines():
        messages = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        caplog.clear()
        return messages

    return lines
