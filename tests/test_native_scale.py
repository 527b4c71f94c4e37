"""`data_transforms.scale: native`: training, evaluation and prediction see the image's own pixels."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from transform_settings import transform_settings

from data_transforms.data_transforms import Data_Transform
from evaluation.metrics import dice
from main import main
from model import load_model

NATIVE = "data_transforms.scale=native"
FLIPS = "evaluation.tta=flips"


@pytest.mark.parametrize("size", [(48, 40), (20, 70), (20, 24)])
def test_a_training_crop_is_a_part_of_the_image_pixel_by_pixel(size):
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    settings = transform_settings(img_size=32, scale="native")
    transform = Data_Transform(settings, train=True)
    mean, std = torch.tensor(settings.pixel_mean)[:, None, None], torch.tensor(settings.pixel_std)[:, None, None]
    places = set()
    torch.manual_seed(0)
    for _ in range(20):
        crop, _, (height, width) = transform(image)
        assert crop.shape == (3, 32, 32)
        assert (height, width) == (min(32, size[0]), min(32, size[1]))
        pixels = (crop[:, :height, :width] * std + mean).round().byte().numpy().transpose(1, 2, 0)
        found = np.lib.stride_tricks.sliding_window_view(image, (height, width, 3))[:, :, 0]
        matches = np.argwhere((found == pixels).all(axis=(2, 3, 4)))
        assert len(matches) == 1
        places.add(tuple(matches[0]))
    assert len(places) > (1 if max(size) > 32 else 0)


def test_outside_training_every_pixel_is_kept():
    image = np.random.default_rng(0).integers(0, 255, (20, 70, 3), dtype=np.uint8)
    pixels, mask, valid = Data_Transform(transform_settings(img_size=32, scale="native"), train=False)(image)
    assert pixels.shape == (3, 32, 70)
    assert mask.shape == (32, 70)
    assert valid == (20, 70)
    assert not pixels[:, 20:].any()


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((48, 40), [NATIVE]),
        ((20, 70), [NATIVE]),
        ((20, 24), [NATIVE]),
        ((48, 40), [NATIVE, FLIPS]),
        ((48, 40), [FLIPS]),
    ],
)
def test_the_dice_of_test_is_the_dice_of_the_masks_that_predict_writes(
    workspace, draw_dataset, tmp_path, size, options
):
    data = tmp_path / "native"
    draw_dataset(data, {"train": 4, "val": 1, "test": 3}, size)
    more = ("--set", *options, f"data.root_path={data}", "sam.mask_head=detail", "training.lr=1e-2")
    assert main([*workspace.train_arguments("run/m.safetensors", *more)]) == 0
    checkpoint = workspace.folder / "run" / "m.safetensors"
    predictor = load_model(checkpoint)
    assert predictor.transform.native == (NATIVE in options)
    if FLIPS in options:  # the mean over mirror images: the mirrored image has the mirrored logits
        image = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
        mirrored = predictor.logits(image[:, ::-1].copy()).flip(2)
        torch.testing.assert_close(predictor.logits(image), mirrored, atol=1e-4, rtol=1e-4)
    images = sorted((data / "images").glob("test*.png"))
    arguments = ["predict", "--checkpoint", str(checkpoint), "--images", str(data / "images"), "--device", "cpu"]
    assert main([*arguments, "--output", str(tmp_path / "masks")]) == 0
    rows = csv.DictReader((workspace.folder / "run" / "per_image.csv").open())
    scores = {row["image"]: float(row["dice_native"]) for row in rows if row["weights"] == "last"}
    assert len(scores) == 3
    for image in images:
        predicted, truth = (np.asarray(Image.open(p / image.name)) > 0 for p in (tmp_path / "masks", data / "masks"))
        assert predicted.shape == size
        assert dice(predicted, truth) == pytest.approx(scores[image.name], abs=1e-6)


def test_a_box_prompt_does_not_go_with_windows(workspace, capsys):
    more = ("--training_strategy", "none", "--set", NATIVE, "prompts.type=box_full")
    assert main([*workspace.train_arguments("run/m.safetensors", *more)]) == 2
    assert "the windows of data_transforms.scale = native are prompted by text alone" in capsys.readouterr().err
