"""Several checkpoints as one predictor: the mean of their probabilities."""

import numpy as np
import pytest
from PIL import Image

from main import main
from model import load_model, load_models
from utils.errors import UserError


@pytest.fixture(scope="module")
def three(make_weights):
    """Weights files of a SAM, another SAM of the same labels, and a U-Net of another label."""
    return make_weights("sam"), make_weights("sam", ("Vein",), ("ft.r_lora=4",)), make_weights("unet", ("Artery",))


def noise(seed):
    return np.random.default_rng(seed).integers(0, 256, (21, 34, 3), dtype=np.uint8)


def test_probabilities_are_averaged(three):
    alone = [load_model(path) for path in three[:2]]
    both = load_models(three[:2])
    for options in ({}, {"flips": True}, {"tile": True}):
        one, two = (model.probabilities(noise(0), "Vein", **options).astype(np.float64) for model in alone)
        assert np.abs(one - two).max() > 1e-3
        np.testing.assert_allclose(both.probabilities(noise(0), "Vein", **options), (one + two) / 2, atol=1e-6)
    expected = (one + two) / 2 > 0.4
    np.testing.assert_array_equal(both.predict(noise(0), "Vein", 0.4, tile=True), expected)


def test_one_checkpoint_is_itself(three):
    alone, only = load_model(three[0]), load_models(three[:1])
    np.testing.assert_array_equal(only.logits(noise(1)).numpy(), alone.logits(noise(1)).numpy())


def test_models_of_other_labels_are_refused(three):
    with pytest.raises(UserError, match=r"its labels are \['Artery'\], those of .* \['Vein'\]; average equal ones"):
        load_models([three[0], three[2]])


def test_predict_takes_several_checkpoints(three, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    Image.fromarray(noise(2)).save(images / "a.png")
    checkpoints = ["--checkpoint", str(three[0]), str(three[1])]
    output = ["--output", str(tmp_path / "out"), "--probabilities", "npy", "--device", "cpu"]
    assert main(["predict", *checkpoints, "--images", str(images), *output]) == 0
    expected = load_models(three[:2]).probabilities(noise(2), "Vein")
    np.testing.assert_allclose(np.load(tmp_path / "out" / "probabilities" / "a.npy")[0], expected, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "a.png")) > 0, expected > 0.5)
