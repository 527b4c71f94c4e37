"""Prediction from the command line: masks of the images' own size, by label."""

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.io import read_image
from main import main
from model import load_model
from predict import Predictor, index_map


def test_the_largest_logit_wins_and_none_above_0_is_background():
    logits = torch.tensor([[[1.0, -1.0, 3.0]], [[2.0, -2.0, 1.0]]])
    assert index_map(logits, [0, 4, 9]).tolist() == [[9, 0, 4]]
    assert index_map(logits, [7, 4, 9]).tolist() == [[9, 7, 4]]
    assert index_map(logits, [0, 4, 9]).dtype == np.uint8


@pytest.fixture
def two_labels(workspace):
    """A run on the generated set with two foreground labels, vessel and disc."""
    data = workspace.folder / "two"
    assert main(["prepare", "synthetic", "--output", str(data), "--count", "6", "--size", "64", "--labels", "2"]) == 0
    workspace.data_config.write_text(
        f"data: {{root_path: {data}, label_list: [0, 1, 2], label_names: [Background, Vessel, Disc]}}\n"
    )
    assert main(workspace.train_arguments()) == 0
    return workspace


def test_two_labels_end_to_end(two_labels):
    import json

    run = two_labels.folder / "run"
    results = json.loads((run / "results.json").read_text())["last"]
    assert set(results["labels"]) == {"Vessel", "Disc"}
    assert results["native"]["n"] == 2 * results["labels"]["Disc"]["native"]["n"]
    images = two_labels.folder / "two" / "images"
    out = two_labels.folder / "out"
    checkpoint = str(run / "model.safetensors")
    arguments = ["--checkpoint", checkpoint, "--images", str(images), "--output", str(out), "--device", "cpu"]
    assert main(["predict", *arguments]) == 0
    assert {path.name for path in out.iterdir()} == {path.name for path in images.iterdir()}
    predictor = Predictor.from_checkpoint(run / "model.safetensors", torch.device("cpu"))
    image = read_image(sorted(images.iterdir())[0])
    mask = np.asarray(Image.open(out / sorted(images.iterdir())[0].name))
    assert mask.shape == image.shape[:2]
    assert set(np.unique(mask)) <= {0, 1, 2}
    assert np.array_equal(mask, index_map(predictor.logits(image), [0, 1, 2]))
    model, _ = load_model(run / "model.safetensors")
    pixels, _, _ = predictor.transform(image)
    with torch.no_grad():
        both = model(pixels[None].expand(2, -1, -1, -1), ["Vessel", "Disc"])
    assert not torch.allclose(both[0], both[1])


def test_masks_of_one_label_have_the_images_own_size(workspace):
    assert main(workspace.train_arguments()) == 0
    images = workspace.folder / "in"
    (images / "deep").mkdir(parents=True)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (90, 50, 3), dtype=np.uint8)).save(images / "a.jpg")
    Image.fromarray(rng.integers(0, 65535, (20, 70), dtype=np.uint16)).save(images / "deep" / "b.png")
    checkpoint = str(workspace.folder / "run" / "model.safetensors")
    out = workspace.folder / "out"
    arguments = ["--checkpoint", checkpoint, "--images", str(images), "--output", str(out), "--device", "cpu"]
    assert main(["predict", *arguments]) == 0
    for name, size in (("a.png", (90, 50)), ("deep/b.png", (20, 70))):
        mask = np.asarray(Image.open(out / name))
        assert mask.shape == size
        assert set(np.unique(mask)) <= {0, 255}


def test_an_unreadable_image_is_named_and_the_others_are_done(workspace, capsys, caplog):
    assert main(workspace.train_arguments()) == 0
    images = workspace.data / "images"
    (images / "broken.png").write_bytes(b"no image")
    checkpoint = str(workspace.folder / "run" / "model.safetensors")
    out = workspace.folder / "out"
    arguments = ["--checkpoint", checkpoint, "--images", str(images), "--output", str(out), "--device", "cpu"]
    assert main(["predict", *arguments]) == 1
    assert "broken.png: not a readable image" in caplog.text
    assert "1 images could not be predicted" in capsys.readouterr().err
    assert len(list(out.iterdir())) == 8


def test_a_sixteen_bit_image_that_the_window_would_turn_white_is_named(workspace, caplog):
    data_section = workspace.data_config.read_text().splitlines()[1]
    workspace.data_config.write_text(f"data_transforms: {{a_max: 255}}\n{data_section}\n")
    assert main(workspace.train_arguments()) == 0
    images = workspace.folder / "in"
    images.mkdir()
    Image.fromarray(np.full((20, 30), 40_000, np.uint16)).save(images / "deep.png")
    Image.fromarray(np.full((20, 30), 200, np.uint8)).save(images / "plain.png")
    checkpoint = str(workspace.folder / "run" / "model.safetensors")
    out = workspace.folder / "out"
    arguments = ["--checkpoint", checkpoint, "--images", str(images), "--output", str(out), "--device", "cpu"]
    assert main(["predict", *arguments]) == 1
    assert "deep.png: data_transforms: a_max (255) would turn 100% of this 16-bit image white" in caplog.text
    assert [path.name for path in out.iterdir()] == ["plain.png"]


def test_images_whose_masks_would_have_one_name_are_refused(workspace, capsys):
    assert main(workspace.train_arguments()) == 0
    images = workspace.data / "images"
    Image.open(images / "train0.png").save(images / "train0.bmp")
    checkpoint = str(workspace.folder / "run" / "model.safetensors")
    out = workspace.folder / "out"
    arguments = ["--checkpoint", checkpoint, "--images", str(images), "--output", str(out), "--device", "cpu"]
    assert main(["predict", *arguments]) == 1
    assert "both masks would be" in capsys.readouterr().err
    assert not out.exists()
