"""A small study of two families, and finished runs of it with numbers chosen by the test."""

import csv
import json

import pytest
import yaml

from study.plan import read_study

IMAGES = [f"{i:02}.png" for i in range(6)]


@pytest.fixture
def plan(workspace):
    """Writes the plan of a small study and returns its path; plan(key=value) overrides its keys."""

    def write(**changes):
        content = {
            "output": str(workspace.folder / "runs"),
            "title": "A small study",
            "command": "make study",
            "datasets": {
                "drive": {
                    "data_config": str(workspace.data_config),
                    "validation_images": 1,
                    "choice_overrides": ["training.num_epochs=1"],
                }
            },
            "seeds": [0, 1, 2],
            "learning_rates": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2],
            "first_rates": [3e-4, 1e-3, 3e-3],
            "overrides": ["training.num_epochs=2"],
            "bases": {"sam": {"model_config": str(workspace.model_config), "overrides": ["ft.r_lora=1"]}},
            "families": {
                "Nano": {
                    "none": {"base": "sam", "label": "before", "overrides": ["strategy=none"], "trained": False},
                    "lora": {"base": "sam", "label": "LoRA", "overrides": ["strategy=lora"]},
                    "salt": {"base": "sam", "label": "SALT", "overrides": ["strategy=salt"]},
                }
            },
            "variants": {"relu": {"base": "sam", "overrides": ["ft.relu=none"], "lr_of": "salt"}},
            "tested": ["salt"],
            "ablations": [{"title": "ReLU", "rows": {"salt": "core", "relu": "nowhere"}}],
        } | changes
        path = workspace.folder / "study.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    return write


@pytest.fixture
def study(plan):
    """The small study."""
    return read_study(plan())


METHODS = {"none": "none", "lora": "lora"}


@pytest.fixture
def finish(study):
    """finish(row, seed, native Dice of each image) writes a finished run of the small study."""

    def write(row, seed, dice, part="final", dataset="drive"):
        folder = study.output / part / row / dataset / str(seed)
        folder.mkdir(parents=True)

        def spread(values):
            return {"mean": sum(values) / len(values), "ci95": [min(values), max(values)]}

        native = {"dice": spread(dice), "hd95": spread([5.0]), "n": len(dice), "n_empty": 0}
        results = {
            "method": METHODS.get(row, "salt"), "arch": "Prompt Adapted SAM", "sam_type": "nano", "dataset": "bars",
            "ranks": {"row": row}, "img_size": 32, "seed": seed, "trainable": 1234, "percent": 12.34,
            "last": {"epoch": 2, "img_size": native, "native": native},
        }  # fmt: skip
        (folder / "results.json").write_text(json.dumps(results))
        with (folder / "per_image.csv").open("w", newline="") as file:
            columns = ["weights", "image", "label", "dice", "hd95", "dice_native", "hd95_native"]
            lines = [["last", name, "Bar", 0.0, 9.0, value, 5.0] for name, value in zip(IMAGES, dice, strict=False)]
            csv.writer(file).writerows([columns, *lines])
        curve = [{"epoch": e, "train": {"dice": 0.1 * e}, "val": {"dice": 0.2}, "seconds": 4.0 - e} for e in (1, 2)]
        if row != "none":
            (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in curve))
        return folder

    return write
