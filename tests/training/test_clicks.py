"""Fine-tuning nano SAM with clicks, by the real commands: masks get better with more clicks, and with the training."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import label

from datasets.converters.shapes import draw_shapes

ROOT = Path(__file__).resolve().parents[2]
CLICKS = (1, 3, 5)


def command(*arguments):
    result = subprocess.run([sys.executable, "main.py", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result


def dice(path):
    results = json.loads(path.read_text())
    scores = results.get("last", results)["native"]
    assert results["prompt"] == "points"
    return scores["dice"]["mean"]


def draw_two_objects(folder, splits, size=64):
    """Images of `prepare shapes`, and as labels their two largest blobs or textures: nothing else tells them apart."""
    rows, seed = ["imgs,split"], 0
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for split, count in splits.items():
        found = 0
        while found < count:
            image, kinds = draw_shapes(np.random.default_rng([7, seed]), size)
            seed += 1
            objects = [part == i for part, many in map(label, (kinds == 1, kinds == 2)) for i in range(1, many + 1)]
            objects = sorted((each for each in objects if each.sum() >= 40), key=np.sum)[-2:]
            if len(objects) < 2:
                continue
            Image.fromarray(image).save(folder / "images" / f"{split}{found}.png")
            Image.fromarray((objects[0] + 2 * objects[1]).astype(np.uint8)).save(
                folder / "masks" / f"{split}{found}.png"
            )
            rows.append(f"{split}{found}.png,{split}")
            found += 1
    (folder / "data_split.csv").write_text("\n".join(rows) + "\n")


@pytest.mark.slow
def test_more_clicks_and_training_make_better_masks(tmp_path):
    """Which of an image's two objects is meant, the clicks alone say: no text is given."""
    data, config = tmp_path / "objects", tmp_path / "data.yaml"
    draw_two_objects(data, {"train": 160, "val": 4, "test": 40})
    config.write_text(
        f"data: {{root_path: {data}, label_list: [0, 1, 2], label_names: [Background, Smaller, Larger]}}\n"
        "data_transforms: {use_horizontal_flip: true, use_vertical_flip: true}\n"
    )
    common = ["--data_config", config, "--model_config", "configs/model/nano_salt.yaml", "--device", "cpu"]
    common += ["--pretrained_path", "weights/nano_sam.safetensors"]
    settings = ["--set", "sam.img_size=64", "prompts.type=points", "training.batch_size=8"]
    before, after = [], []
    for count in CLICKS:
        save = tmp_path / f"before{count}" / "m.safetensors"
        more = ["--save_path", save, "--training_strategy", "none", *settings, f"prompts.clicks={count}"]
        command(*common, *more)
        before.append(dice(save.parent / "results.json"))
    save = tmp_path / "after" / "m.safetensors"
    settings += ["training.num_epochs=30", "training.schedule_step=24", "training.lr=1e-3", "training.val_every=30"]
    command(*common, "--save_path", save, "--training_strategy", "decoder", *settings)
    for count in CLICKS:
        command("test", "--checkpoint", save, "--device", "cpu", "--clicks", count)
        after.append(dice(save.parent / f"m_objects_test_clicks_{count}" / "results.json"))
    print(before, after)
    assert after == sorted(set(after)), (before, after)
    assert all(new > old for old, new in zip(before, after, strict=True)), (before, after)
