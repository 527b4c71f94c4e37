"""The whole way on real images: train on DRIVE, predict files, export; every format gives the predicted masks."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from stock_models import stock_sam, stock_sam2

from data_transforms.data_transforms import to_native
from datasets.io import read_image
from main import main
from model import load_model

DRIVE = Path(__file__).resolve().parents[2] / "shared" / "data" / "DRIVE"
# (config, base weights, the image size: SAM2's own 512 would take four times as long, stock package)
MODELS = {
    "nano SAM": ("nano_salt", "nano_sam", 256, stock_sam),
    "nano SAM2": ("nano_sam2_salt", "nano_sam2", 256, stock_sam2),
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DRIVE.is_dir(), reason="the DRIVE images are not beside the checkout"),
    pytest.mark.xdist_group("round trip"),  # one run a model for all of these tests
]


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    """DRIVE, prepared; the folder."""
    folder = tmp_path_factory.mktemp("drive") / "data"
    assert main(["prepare", "drive", "--source", str(DRIVE), "--output", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module", params=MODELS.values(), ids=MODELS)
def trained(request, drive, tmp_path_factory):
    """A run of two epochs, and the masks that `predict` writes of the test images."""
    config, weights, img_size, stock = request.param
    folder = tmp_path_factory.mktemp(config)
    checkpoint = folder / "run" / "m.safetensors"
    arguments = ["--data_config", "configs/data/drive.yaml", "--model_config", f"configs/model/{config}.yaml"]
    arguments += ["--pretrained_path", f"weights/{weights}.safetensors", "--save_path", str(checkpoint)]
    overrides = [f"data.root_path={drive}", "training.num_epochs=2", f"sam.img_size={img_size}"]
    assert main([*arguments, "--device", "cpu", "--set", *overrides]) == 0
    rows = csv.DictReader((drive / "data_split.csv").open())
    images = [drive / "images" / row["imgs"] for row in rows if row["split"] == "test"]
    return SimpleNamespace(
        folder=folder, checkpoint=checkpoint, images=images, data=drive, img_size=img_size, stock=stock,
        masks=predicted(checkpoint, images, folder / "masks"),
    )  # fmt: skip


def predicted(checkpoint, images, output):
    """{name: (H, W) bool} of the PNGs that the command writes."""
    arguments = ["--checkpoint", str(checkpoint), "--images", *map(str, images), "--output", str(output)]
    assert main(["predict", *arguments, "--device", "cpu"]) == 0
    return {image.name: np.asarray(Image.open(output / f"{image.stem}.png")) > 0 for image in images}


def exported(trained, name, kind):
    output = trained.folder / name
    assert main(["export", "--checkpoint", str(trained.checkpoint), "--output", str(output), "--format", kind]) == 0
    return output


def assert_same_masks(trained, logits_of):
    """`logits_of(pixels)`, at the model's size, give the predicted PNGs; where they don't, a logit is all but 0."""
    predictor = load_model(trained.checkpoint)
    for path in trained.images:
        image = read_image(path)
        pixels, _, valid = predictor.transform(image)
        found = to_native(logits_of(pixels[None])[0], valid, image.shape[:2]).numpy()
        expected = trained.masks[path.name]
        assert 0.01 < expected.mean() < 0.5
        different = (found > 0) != expected
        assert different.mean() < 1e-4
        assert np.abs(found[different]).max(initial=0) < 1e-2


def test_the_masks_score_what_the_results_say(trained):
    assert len(trained.masks) == 6
    dice = []
    for name, mask in trained.masks.items():
        truth = np.asarray(Image.open(trained.data / "masks" / name)) > 0
        assert truth.shape == mask.shape
        dice.append(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))
    results = json.loads((trained.checkpoint.parent / "results.json").read_text())["last"]["native"]
    assert np.mean(dice) == pytest.approx(results["dice"]["mean"], abs=1e-6)


def test_the_stock_package_gives_the_same_masks(trained):
    stock = trained.stock(load_file(exported(trained, "sam.safetensors", "sam")), trained.img_size)
    [label] = load_model(trained.checkpoint).labels
    with torch.no_grad():
        tokens = load_model(trained.checkpoint).model.text_tokens([label])
    assert_same_masks(trained, lambda pixels: stock(pixels, tokens)[1])


def test_onnxruntime_gives_the_same_masks(trained):
    pytest.importorskip("onnx", reason="the optional package onnx is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="the optional package onnxruntime is not installed")
    session = onnxruntime.InferenceSession(exported(trained, "m.onnx", "onnx"), providers=["CPUExecutionProvider"])
    transform = load_model(trained.checkpoint).transform
    mean, std = (torch.tensor(part)[:, None, None] for part in (transform.mean, transform.std))

    def logits(pixels):
        [probabilities] = session.run(["probabilities"], {"image": ((pixels * std + mean) * 255).numpy()})
        return torch.logit(torch.from_numpy(probabilities[0]))

    assert_same_masks(trained, logits)


def test_the_file_that_stands_alone_gives_the_same_masks(trained):
    full = exported(trained, "full.safetensors", "full")
    for name, mask in predicted(full, trained.images, trained.folder / "full").items():
        assert np.array_equal(mask, trained.masks[name])
