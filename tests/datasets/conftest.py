"""A set on disk and the config that names it."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image


def _settings(**changes) -> SimpleNamespace:
    values = {
        "a_min": None,
        "a_max": None,
        "img_size": 32,
        "use_random_crop": False,
        "use_rotation": False,
        "rotation_angle": 10.0,
        "use_saturation": False,
        "saturation": 0.2,
        "use_brightness": False,
        "brightness": 0.2,
        "use_horizontal_flip": False,
        "use_vertical_flip": False,
        "use_random_scale": False,
        "random_scale": [0.8, 1.2],
        "pixel_mean": [123.675, 116.28, 103.53],
        "pixel_std": [58.395, 57.12, 57.375],
    }
    return SimpleNamespace(**(values | changes))


@pytest.fixture
def make_set(tmp_path) -> Callable[..., SimpleNamespace]:
    """A function that writes a set of 24 x 20 images, masks of 0/255 or of 0..labels, and returns its config."""

    def make(splits: dict[str, int], labels: int = 1, **transforms) -> SimpleNamespace:
        root = Path(tmp_path / "set")
        rng = np.random.default_rng(1)
        for folder in ("images", "masks"):
            (root / folder).mkdir(parents=True)
        rows = ["imgs,split"]
        for split, count in splits.items():
            for i in range(count):
                name = f"{split}{i}.png"
                Image.fromarray(rng.integers(0, 256, (24, 20, 3), dtype=np.uint8)).save(root / "images" / name)
                mask = rng.integers(0, labels + 1, (24, 20), dtype=np.uint8)
                Image.fromarray(mask * 255 if labels == 1 else mask).save(root / "masks" / name)
                rows.append(f"{name},{split}")
        (root / "data_split.csv").write_text("\n".join(rows) + "\n")
        data = SimpleNamespace(
            root_path=root,
            data_split_csv=None,
            label_list=list(range(labels + 1)),
            label_names=["Background", *(f"L{i}" for i in range(1, labels + 1))],
        )
        return SimpleNamespace(data=data, data_transforms=_settings(**transforms))

    return make
