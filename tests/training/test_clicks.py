"""Fine-tuning nano SAM with clicks, by the real commands: masks get better with more clicks, and with the training."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.slow
def test_more_clicks_and_training_make_better_masks(tmp_path):
    """Which of an image's blobs, textures and curves is meant, the clicks alone say: no text is given."""
    data = tmp_path / "shapes"
    command("prepare", "shapes", "--count", 240, "--size", 64, "--labels", 3, "--output", data)
    names = [line.split(",")[0] for line in (data / "data_split.csv").read_text().splitlines()[1:]]
    splits = ["train"] * 180 + ["val"] * 10 + ["test"] * 50  # its own leaves six images to test
    rows = [f"{name},{split}\n" for name, split in zip(names, splits, strict=True)]
    (data / "data_split.csv").write_text("imgs,split\n" + "".join(rows))
    config = tmp_path / "data.yaml"
    config.write_text(
        f"data: {{root_path: {data}, label_list: [0, 1, 2, 3], label_names: [Background, Blob, Texture, Curve]}}\n"
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
    more = ["--save_path", save, "--training_strategy", "full", *settings, "training.num_epochs=8", "training.lr=1e-3"]
    command(*common, *more)
    for count in CLICKS:
        command("test", "--checkpoint", save, "--device", "cpu", "--clicks", count)
        after.append(dice(save.parent / f"m_shapes_test_clicks_{count}" / "results.json"))
    assert after == sorted(set(after)), (before, after)
    assert all(new > old for old, new in zip(before, after, strict=True)), (before, after)
