"""The field of view by the threshold rule, alone and as an option of the two sets that come without."""

import gzip
import io

import numpy as np
import pytest
from PIL import Image

from datasets.converters.field_of_view import by_threshold
from main import main
from utils.errors import UserError


def disc():
    """A photograph (30, 40, 3): a red disc with a dark vessel and a hole, and a bright spot in the surround."""
    y, x = np.mgrid[:30, :40]
    inside = (y - 15) ** 2 + (x - 18) ** 2 <= 13**2
    image = np.full((30, 40, 3), 8, np.uint8)
    image[inside] = 180, 60, 30
    image[14:16, 10:20] = 10
    image[0:2, 38:40] = 255
    return image, inside


def test_the_largest_piece_with_its_holes_filled():
    image, inside = disc()
    assert np.array_equal(by_threshold(20)(image), inside)
    assert np.array_equal(by_threshold(20)(image[..., 0]), inside)
    assert by_threshold(0)(image).all()
    assert by_threshold(None) is None
    with pytest.raises(UserError, match="--fov_threshold 255: no pixel of an image is brighter"):
        by_threshold(255)(image)


def write_chase(root, image, vessels):
    for child in range(1, 15):
        for eye in "LR":
            Image.fromarray(image).save(root / f"Image_{child:02d}{eye}.jpg", quality=100, subsampling=0)
            Image.fromarray(vessels).save(root / f"Image_{child:02d}{eye}_1stHO.png")


def write_stare(root, image, vessels):
    def packed(values):
        buffer = io.BytesIO()
        Image.fromarray(values).save(buffer, format="PPM")
        return gzip.compress(buffer.getvalue())

    for number in range(20):
        (root / f"im{number:04d}.ppm.gz").write_bytes(packed(image))
        (root / f"im{number:04d}.ah.ppm.gz").write_bytes(packed(vessels * np.uint8(255)))


@pytest.mark.parametrize(("name", "write"), [("chase_db1", write_chase), ("stare", write_stare)])
def test_the_option_fills_fov(tmp_path, capsys, name, write):
    image, inside = disc()
    vessels = np.zeros((30, 40), bool)
    vessels[14:16, 10:20] = True
    (tmp_path / "source").mkdir()
    write(tmp_path / "source", image, vessels)
    arguments = ["prepare", name, "--source", str(tmp_path / "source"), "--output"]
    assert main([*arguments, str(tmp_path / "without")]) == 0
    assert not (tmp_path / "without" / "fov").exists()
    assert main([*arguments, str(tmp_path / "out"), "--fov-threshold", "40"]) == 0
    fields = sorted((tmp_path / "out" / "fov").iterdir())
    assert [p.name for p in fields] == sorted(p.name for p in (tmp_path / "out" / "masks").iterdir())
    with Image.open(fields[3]) as found:
        assert (np.asarray(found) > 0).sum() == pytest.approx(inside.sum(), rel=0.02)
    capsys.readouterr()
    assert main([*arguments, str(tmp_path / "bad"), "--fov_threshold", "255"]) == 1
    assert "no pixel of an image is brighter; give a lower one" in capsys.readouterr().err
