"""`load_model` and what it returns: numpy images in, masks of their own size out."""

import numpy as np
import pytest
import torch

import adapters
from data_transforms.data_transforms import to_native
from evaluation.threshold import logit
from model import build_model, load_model, load_trained
from prediction import Predictor
from prediction.predictor import index_map
from utils.config import Config
from utils.errors import ConfigError, UserError

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 255, (40, 28, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def predictor(sam_weights):
    return load_model(sam_weights)


@pytest.mark.parametrize("kind", ["sam", "sam2", "unet"])
def test_the_predictor_gives_what_the_model_gives(make_weights, kind):
    path = make_weights(kind, ("Vein", "Disc"))
    predictor = load_model(path)
    model, _ = load_trained(path)
    pixels, _, valid = predictor.transform(IMAGE)
    with torch.no_grad():
        squares = model(pixels[None].expand(2, -1, -1, -1), ["Vein", "Disc"])
    expected = torch.stack([to_native(square, valid, (40, 28)) for square in squares])
    logits = predictor.logits(IMAGE)
    torch.testing.assert_close(logits, expected, atol=2e-3, rtol=1e-3)
    assert not torch.allclose(logits[0], logits[1], atol=1e-2)
    vein = predictor.predict(IMAGE, "Vein")
    assert vein.shape == (40, 28)
    assert vein.dtype == bool
    assert np.array_equal(vein, (logits[0] > 0).numpy())
    every = predictor.predict_all(IMAGE)
    assert every.dtype == np.uint8
    assert np.array_equal(every, index_map(logits, [0, 3, 6]))


def test_probabilities_and_thresholds_belong_together(predictor):
    p = predictor.probabilities(IMAGE, "Vein")
    assert p.dtype == np.float32
    assert 0 < p.min() < p.max() < 1
    middle = float(np.median(p))
    strict = predictor.predict(IMAGE, "Vein", threshold=middle)
    assert np.array_equal(strict[np.abs(p - middle) > 1e-6], (p > middle)[np.abs(p - middle) > 1e-6])
    assert 0.3 < strict.mean() < 0.7
    assert logit(0.5) == 0
    with pytest.raises(ValueError, match="between 0 and 1"):
        predictor.predict(IMAGE, "Vein", threshold=1.0)


@pytest.mark.parametrize("kind", ["sam", "sam2"])
def test_a_loaded_model_is_built_of_the_base_models_own_layers(make_weights, kind):
    """As fast as the plain model: the same modules in the same places, no adapter and no factor left."""
    path = make_weights(kind)
    merged = load_model(path).model
    _, config = load_trained(path)
    plain = build_model(Config.from_yaml(config.to_yaml().replace("strategy: salt", "strategy: none"), "test"))
    assert not list(adapters.adapted_layers(plain))
    layers = {name: (type(m), getattr(m, "weight", torch.empty(0)).shape) for name, m in merged.named_modules()
              if not isinstance(m, torch.nn.ModuleList)}  # fmt: skip
    for name, module in plain.named_modules():
        if name in layers and not isinstance(module, torch.nn.ModuleList):
            assert layers[name] == (type(module), getattr(module, "weight", torch.empty(0)).shape)
    assert layers.keys() == {n for n, m in plain.named_modules() if not isinstance(m, torch.nn.ModuleList)}
    assert set(merged.state_dict()) == set(plain.state_dict())
    assert not any(p.requires_grad for p in merged.parameters())


def test_mirror_images_are_averaged(predictor):
    logits = predictor.logits(IMAGE, flips=True)
    views = [predictor.logits(np.flip(IMAGE, a)).flip([i + 1 for i in a]) for a in ((), (0,), (1,), (0, 1))]
    torch.testing.assert_close(logits, torch.stack(views).mean(0))
    torch.testing.assert_close(predictor.logits(IMAGE[:, ::-1], flips=True).flip(2), logits, atol=1e-4, rtol=1e-4)


def test_tiles_of_a_small_image_change_nothing(predictor):
    image = RNG.integers(0, 255, (32, 20, 3), dtype=np.uint8)
    assert torch.equal(predictor.logits(image, tile=True), predictor.logits(image))


def test_tiles_see_a_large_image_at_its_own_resolution(predictor):
    image = RNG.integers(0, 255, (100, 70, 3), dtype=np.uint8)
    logits = predictor.logits(image, tile=True)
    assert logits.shape == (1, 100, 70)
    corner = predictor.logits(image[:32, :32])
    alone = 32 - (32 - 19)  # the second window of 100 begins at 23, that of 70 at 19
    torch.testing.assert_close(logits[:, :alone, :alone], corner[:, :alone, :alone], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(logits, predictor.logits(image), atol=0.05)


def test_grey_and_alpha_are_the_same_image(predictor):
    grey = IMAGE[..., 0]
    expected = predictor.logits(np.repeat(grey[..., None], 3, axis=2))
    assert torch.equal(predictor.logits(grey), expected)
    assert torch.equal(predictor.logits(grey[..., None]), expected)
    with_alpha = np.dstack([grey, grey, grey, RNG.integers(0, 255, grey.shape, dtype=np.uint8)])
    assert torch.equal(predictor.logits(with_alpha), expected)


@pytest.mark.parametrize(
    "image", [IMAGE.astype(np.int64), IMAGE[..., :2], IMAGE[None], np.zeros((0, 4, 3), np.uint8), IMAGE > 3]
)
def test_what_is_no_image_is_refused(predictor, image):
    with pytest.raises(ValueError, match="expected an image"):
        predictor.predict(image, "Vein")


def test_an_unknown_label_is_named(predictor):
    with pytest.raises(UserError, match="label 'Artery' is unknown to this model; it knows Vein"):
        predictor.predict(IMAGE, "Artery")


def test_box_prompts(make_weights):
    """A whole-image box needs nothing but the image; a box around the truth needs the truth."""
    overrides = ("strategy=none", "prompts.type=box_full")
    predictor = load_model(make_weights("sam", ("Vein",), overrides))
    assert isinstance(predictor, Predictor)
    assert predictor.predict(IMAGE, "Vein").shape == (40, 28)
    path = make_weights("sam", ("Vein",), ("strategy=none", "prompts.type=box_oracle"))
    with pytest.raises(UserError, match="box_oracle"):
        load_model(path)


def test_the_shown_image_is_stretched_as_the_model_sees_it(make_weights):
    window = ("data_transforms.a_min=100", "data_transforms.a_max=200")
    predictor = load_model(make_weights("sam", ("Vein",), window))
    assert predictor.shown(np.array([[50, 100, 150, 200, 250]], np.uint8))[0, :, 0].tolist() == [0, 0, 128, 255, 255]
    tall = RNG.integers(0, 255, (600, 3), dtype=np.uint8)
    assert np.array_equal(predictor.shown(tall)[500:], predictor.shown(tall[500:]))


def test_a_bright_part_of_an_image_does_not_make_its_window_a_mistake(sam_weights):
    """Whole windows and strips of rows are white; the image is not."""
    predictor = load_model(sam_weights, overrides=["data_transforms.a_max=200"])
    image = np.zeros((700, 100), np.uint16)
    image[:300] = 40_000
    assert torch.isfinite(predictor.logits(image, tile=True)).all()
    assert predictor.shown(image).mean(axis=(1, 2)).tolist() == [255] * 300 + [0] * 400
    with pytest.raises(ConfigError, match="16-bit image white"):
        predictor.logits(image[:500], tile=True)
