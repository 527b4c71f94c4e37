"""`training.cache_embeddings`: the frozen encoder runs once for each image, and the results stay the same."""

import pytest
import torch
from sam2.modeling.backbones.image_encoder import ImageEncoder
from segment_anything.modeling import ImageEncoderViT
from short_runs import assert_same_runs, config_of, largest_difference, records, run

from main import main
from model import build_model
from training.embeddings import EmbeddingCache
from training.processes import Processes
from utils.config import load_config
from utils.errors import ConfigError

PLAIN = ("data_transforms.use_rotation=false", "data_transforms.use_horizontal_flip=false",
         "data_transforms.use_brightness=false")  # fmt: skip
SAM2 = ("arch=Prompt Adapted SAM 2", "sam.img_size=64")
MODELS = {"SAM": (), "SAM2": SAM2, "SAM2, plain decoder": (*SAM2, "sam.high_res_features=false"),
          "detail head": ("sam.mask_head=detail",)}  # fmt: skip
IN_THE_FAST_LANE = ("SAM", "SAM2")
ON = "training.cache_embeddings=1"


@pytest.fixture
def encoded_images(monkeypatch):
    """The number of images that went through an image encoder since the start."""
    counted = []
    for encoder in (ImageEncoderViT, ImageEncoder):
        original = encoder.forward

        def forward(self, images, _original=original):
            counted.append(len(images))
            return _original(self, images)

        monkeypatch.setattr(encoder, "forward", forward)
    return counted


@pytest.mark.parametrize(
    "model", [pytest.param(model, marks=() if model in IN_THE_FAST_LANE else pytest.mark.slow) for model in MODELS]
)
@pytest.mark.usefixtures("no_pictures")
def test_a_run_with_kept_embeddings_is_the_same_run(workspace, encoded_images, model):
    """4 training and 2 validation images are encoded once, not in each of the epochs; the test's as ever."""
    options, epochs = (*PLAIN, *MODELS[model], "training.num_epochs=2"), 2
    run(workspace, "plain/m.safetensors", *options, strategy="decoder")
    plain = sum(encoded_images)
    encoded_images.clear()
    run(workspace, "kept/m.safetensors", *options, ON, strategy="decoder")
    assert plain - sum(encoded_images) == (epochs - 1) * (4 + 2)
    folders = workspace.folder / "plain", workspace.folder / "kept"
    assert largest_difference(*folders) < 1e-4
    for first, second in zip(records(folders[0]), records(folders[1]), strict=True):
        assert first["loss"]["total"] == pytest.approx(second["loss"]["total"], rel=1e-4)
        assert first["val"]["dice"] == pytest.approx(second["val"]["dice"], abs=1e-3)


@pytest.mark.usefixtures("no_pictures")
def test_a_resumed_run_encodes_again_and_is_the_same_to_the_bit(workspace, encoded_images):
    options = (*PLAIN, ON)
    run(workspace, "run/m.safetensors", *options, "training.num_epochs=2", strategy="decoder")
    run(workspace, "again/m.safetensors", *options, "training.num_epochs=1", strategy="decoder")
    encoded_images.clear()
    results = run(workspace, "again/m.safetensors", *options, "training.num_epochs=2", strategy="decoder", resume=True)
    tests = 1 if results.best_val.epoch == 2 else 2  # a last epoch that is the best is tested once
    assert sum(encoded_images) == 4 + 2 + tests * 2
    assert_same_runs(workspace.folder / "run", workspace.folder / "again")


def cache_of(workspace, gibibytes, *overrides, strategy="decoder"):
    model = build_model(load_config(workspace.model_config, None, overrides, strategy))
    return EmbeddingCache(model, Processes(torch.device("cpu")), gibibytes)


def test_labels_of_one_image_share_it_and_what_does_not_fit_is_computed_again(workspace, encoded_images):
    images = torch.randn(3, 3, 32, 32)
    one_image = 128 * 4 * 4 * 4 / 2**30  # (128, 4, 4) float32
    cache = cache_of(workspace, 1.5 * one_image)
    expected = cache.model.encode(images)[0]
    encoded_images.clear()
    [first] = cache.encoded(images[[0, 0, 1]], ["a", "a", "b"])
    assert encoded_images == [1, 1]
    [second] = cache.encoded(images[[1, 0, 2]], ["b", "a", "c"])
    assert encoded_images == [1, 1, 1, 1]  # a fits, b and c do not
    for found, order in ((first, [0, 0, 1]), (second, [1, 0, 2])):
        torch.testing.assert_close(found, expected[order], atol=1e-5, rtol=1e-5)
        assert not found.requires_grad


def test_tensors_of_a_validation_serve_training(workspace):
    cache = cache_of(workspace, 1)
    images = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        cache.encoded(images, ["a"])
    [embedding] = cache.encoded(images, ["a"])
    (embedding * torch.ones_like(embedding).requires_grad_()).sum().backward()


@pytest.mark.parametrize(
    ("strategy", "overrides", "message"),
    [
        ("salt", PLAIN, "the strategy trains the image encoder, such as 'image_encoder."),
        ("lora", (*PLAIN, "training.freeze=[image_encoder.*]"), "draws dropout; set ft.lora_dropout: 0"),
        ("full", (*PLAIN, "arch=unet", "baseline.size=nano"), "has no image encoder to keep"),
    ],
)
@pytest.mark.usefixtures("no_pictures")
def test_an_encoder_that_changes_is_refused(workspace, strategy, overrides, message):
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        run(workspace, "run/m.safetensors", *overrides, ON, strategy=strategy)


@pytest.mark.parametrize("name", ["use_rotation", "use_horizontal_flip", "use_brightness", "use_random_crop"])
def test_every_augmentation_is_refused(workspace, name):
    others = [override for override in PLAIN if name not in override]
    with pytest.raises(ConfigError, match=rf"data_transforms\.{name} \(.*\) makes another image in every epoch"):
        config_of(workspace, *others, f"data_transforms.{name}=true", ON, strategy="decoder")
    with pytest.raises(ConfigError, match="crops another part in every epoch"):
        config_of(workspace, *PLAIN, "data_transforms.scale=native", ON, strategy="decoder")


def test_every_augmentation_is_known():
    """A new key of the transform that makes images random must be refused here as well."""
    from utils.config.rules import _AUGMENTATIONS
    from utils.config.schema import DataTransformsConfig

    assert {name for name in DataTransformsConfig.model_fields if name.startswith("use_")} == set(_AUGMENTATIONS)


@pytest.mark.usefixtures("no_pictures")
def test_the_real_command_keeps_embeddings(workspace):
    arguments = ["--training_strategy", "decoder", "--set", *PLAIN, ON, "training.num_epochs=1"]
    assert main(workspace.train_arguments("run/m.safetensors", *arguments)) == 0
