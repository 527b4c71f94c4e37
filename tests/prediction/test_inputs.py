"""What a Predictor takes: files, Pillow images, arrays and tensors of one picture give one mask."""

import numpy as np
import pytest
import torch
from dicom_files import write_dicom
from PIL import Image

from model import load_model, load_models
from utils.errors import UserError

RGB = np.random.default_rng(0).integers(0, 255, (40, 28, 3), dtype=np.uint8)
GREY = RGB[..., 0]


@pytest.fixture(scope="module", params=["the file's range", "0 to 255"])
def predictor(request, make_weights):
    window = ("data_transforms.a_min=0", "data_transforms.a_max=255") if request.param == "0 to 255" else ()
    return load_model(make_weights("sam", ("Vein",), window))


@pytest.mark.parametrize(
    "convert",
    [
        Image.fromarray,
        lambda image: torch.from_numpy(image).permute(2, 0, 1),
        lambda image: image / 255,
        lambda image: (image / 255).astype(np.float32),
        lambda image: torch.from_numpy(image / 255).permute(2, 0, 1).requires_grad_(),
        lambda image: np.dstack([image, GREY]),
        lambda image: Image.fromarray(np.dstack([image, GREY])),
    ],
    ids=["pillow", "tensor", "float64", "float32", "float tensor", "alpha", "pillow with alpha"],
)
def test_one_picture_in_colour_is_one_mask(predictor, convert):
    expected = predictor.probabilities(RGB, "Vein")
    np.testing.assert_allclose(predictor.probabilities(convert(RGB), "Vein"), expected, atol=1e-4)
    assert np.array_equal(predictor.predict_all(convert(RGB)), predictor.predict_all(RGB))


@pytest.mark.parametrize(
    "convert",
    [
        Image.fromarray,
        torch.from_numpy,
        lambda image: torch.from_numpy(image)[None],
        lambda image: image / 255,
        lambda image: Image.fromarray(image).convert("P"),
        lambda image: Image.fromarray((image / 255).astype(np.float32)),
    ],
    ids=["pillow", "tensor", "tensor of one channel", "float64", "palette", "pillow of floats"],
)
def test_one_grey_picture_is_one_mask(predictor, convert):
    expected = predictor.probabilities(GREY, "Vein")
    np.testing.assert_allclose(predictor.probabilities(convert(GREY), "Vein"), expected, atol=1e-4)


def test_a_pillow_image_of_many_grey_values_is_its_array(make_weights):
    """Pillow opens a PGM of more than 8 bits in the mode I, which `convert` would cut to 8 bits."""
    predictor, deep = load_model(make_weights()), GREY.astype(np.uint16) * 257
    picture = Image.fromarray(deep.astype(np.int32))
    assert picture.mode == "I"
    np.testing.assert_array_equal(predictor.probabilities(picture, "Vein"), predictor.probabilities(deep, "Vein"))
    with pytest.raises(ValueError, match=r"expected a Pillow image of 0\.\.65535, got 0 to 99999"):
        predictor.probabilities(Image.fromarray(np.array([[0, 99999]], np.int32)), "Vein")


def test_a_file_is_its_picture(predictor, tmp_path):
    Image.fromarray(RGB).save(tmp_path / "eye.png")
    expected = predictor.predict(RGB, "Vein")
    for path in (tmp_path / "eye.png", str(tmp_path / "eye.png")):
        assert np.array_equal(predictor.predict(path, "Vein"), expected)
    with pytest.raises(UserError, match=r"none\.png"):
        predictor.predict(tmp_path / "none.png", "Vein")


def test_sixteen_bits_are_floats_too(make_weights):
    predictor = load_model(make_weights())
    deep = RGB.astype(np.uint16) * 257
    expected = predictor.probabilities(deep, "Vein")
    np.testing.assert_allclose(predictor.probabilities(deep / 65535, "Vein"), expected, atol=1e-5)
    np.testing.assert_allclose(predictor.probabilities(Image.fromarray(deep[..., 0]), "Vein"),
                               predictor.probabilities(deep[..., 0], "Vein"), atol=1e-5)  # fmt: skip


def test_floats_beyond_1_are_in_the_checkpoints_own_units(make_weights):
    windowed = load_model(make_weights("sam", ("Vein",), ("data_transforms.a_min=-100", "data_transforms.a_max=300")))
    units = (RGB / 255 * 400 - 100).astype(np.float32)
    expected = windowed.probabilities(RGB / 255, "Vein")
    np.testing.assert_allclose(windowed.probabilities(units, "Vein"), expected, atol=1e-3)
    plain = load_model(make_weights())
    with pytest.raises(ValueError, match=r"expected floats between 0 and 1, got -100 to"):
        plain.predict(units, "Vein")
    with pytest.raises(ValueError, match="finite"):
        plain.predict(np.full((4, 4), np.nan), "Vein")
    with pytest.raises(ValueError, match=r"expected a tensor \(H, W\) or \(C, H, W\)"):
        plain.predict(torch.zeros(8, 8, 3), "Vein")


def test_a_dark_dicom_file_stays_dark(make_weights, tmp_path):
    """Its floats lie between 0 and 1 of a window up to 255, and are in the window's units all the same."""
    pytest.importorskip("pydicom", reason="the optional package pydicom is not installed")
    predictor = load_model(make_weights("sam", ("Vein",), ("data_transforms.a_min=0", "data_transforms.a_max=255")))
    write_dicom(tmp_path / "a.dcm", np.full((20, 20), 3, np.uint16), WindowCenter=500, WindowWidth=1000)
    dark, grey = (predictor.probabilities(np.full((20, 20, 3), level, np.uint8), "Vein") for level in (1, 190))
    found = predictor.probabilities(tmp_path / "a.dcm", "Vein")
    assert np.abs(found - dark).max() < 0.1 * np.abs(grey - dark).max()


def test_a_predictor_prints_two_lines(make_weights):
    path = make_weights("sam", ("Vein", "Disc"))
    first, second = repr(load_model(path)).splitlines()
    weights = sum(parameter.numel() for parameter in load_model(path).model.parameters())
    assert first == f"Predictor: Prompt_Adapted_SAM, {weights:,} weights, on cpu"
    assert second == "labels Vein, Disc; images of 32 x 32 pixels; threshold 0.5"
    assert repr(load_models([path, path])).splitlines() == ["Ensemble of 2, the first is",
                                                            first.replace("Predictor", "Ensemble"), second]  # fmt: skip
