"""Bit depths and number ranges that decoders cut or stretch without a word are kept, undone or refused."""

import struct

import numpy as np
import pytest
from PIL import Image

from datasets.io import read_image, read_mask
from utils.errors import UserError


def tiff(bits: int, channels: int, pixels: bytes, width: int = 2) -> bytes:
    """An uncompressed TIFF of one row, of the depths that Pillow can't write."""
    entries = [(256, 4, 1, width), (257, 4, 1, 1), (259, 3, 1, 1), (262, 3, 1, 2 if channels == 3 else 1)]
    entries += [(277, 3, 1, channels), (278, 4, 1, 1), (279, 4, 1, len(pixels))]
    body = 8 + 2 + 12 * (len(entries) + 2) + 4
    depths = struct.pack(f"<{channels}H", *[bits] * channels).ljust(8, b"\0")
    entries += [(258, 3, channels, body if channels == 3 else bits), (273, 4, 1, body + len(depths))]
    packed = b"".join(struct.pack("<HHLL", *entry) for entry in sorted(entries))
    return b"II*\0" + struct.pack("<LH", 8, len(entries)) + packed + bytes(4) + depths + pixels


@pytest.mark.parametrize("kind", ["P5", "P2"])
@pytest.mark.parametrize("white", [1, 2, 3, 100, 254, 255, 256, 1000, 4095, 65535])
def test_every_value_of_a_pgm_of_any_maxval(tmp_path, kind, white):
    values = np.arange(white + 1)
    numbers = " ".join(map(str, values)).encode() if kind == "P2" else values.astype(">u2" if white > 255 else "u1")
    path = tmp_path / "a.pgm"
    path.write_bytes(f"{kind}\n# {white + 7}\n{white + 1} 1\n{white}\n".encode() + bytes(numbers))
    np.testing.assert_array_equal(read_mask(path), values[None])
    full = 255 if white <= 255 else 65535
    image = read_image(path)
    assert image.dtype == (np.uint8 if white <= 255 else np.uint16)
    np.testing.assert_allclose(image[0, :, 2], values * (full / white), atol=0.5 + 1e-6)


def test_a_mask_in_a_ppm_keeps_its_values_too(tmp_path):
    (tmp_path / "a.ppm").write_bytes(b"P3 3 1 2\n0 0 0 1 1 1 2 2 2\n")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.ppm"), [[0, 1, 2]])
    (tmp_path / "b.ppm").write_bytes(b"P6 2 1 5\n" + bytes([0, 0, 0, 5, 5, 5]))
    np.testing.assert_array_equal(read_mask(tmp_path / "b.ppm"), [[0, 5]])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.ppm", b"P6 2 1 65535\n" + bytes(range(12))),
        ("a.ppm", b"P3 1 1 256\n0 1 256\n"),
        ("a.tif", tiff(16, 3, bytes(range(12)))),
    ],
)
def test_deep_colour_that_would_be_cut_to_eight_bits_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    for read in (read_image, read_mask):
        with pytest.raises(UserError, match=rf"{name}: more than 8 bits a colour .* save it as a 16-bit PNG"):
            read(tmp_path / name)


def test_eight_bit_colour_tiff_by_hand_is_read(tmp_path):
    # Shows that the file above is refused for its depth, not for how it is written.
    (tmp_path / "a.tif").write_bytes(tiff(8, 3, bytes([1, 2, 3, 4, 5, 6])))
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), [[[1, 2, 3], [4, 5, 6]]])


def test_thirty_two_bit_integers_that_fit_in_sixteen(tmp_path):
    Image.fromarray(np.array([[0, 40000]], np.int32)).save(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif").dtype == np.uint16
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[..., 0], [[0, 40000]])
    for value in (-1, 65536):
        Image.fromarray(np.array([[0, value]], np.int32)).save(tmp_path / "b.tif")
        with pytest.raises(UserError, match=r"b\.tif: values of type int32 outside 0\.\.65535"):
            read_image(tmp_path / "b.tif")


def test_big_endian_sixteen_bit_tiff(tmp_path):
    content = tiff(16, 1, np.array([300, 65535], "<u2").tobytes())
    (tmp_path / "a.tif").write_bytes(content)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[..., 0], [[300, 65535]])
    image = Image.frombytes("I;16B", (2, 1), np.array([300, 65535], ">u2").tobytes())
    image.save(tmp_path / "b.tif")
    np.testing.assert_array_equal(read_mask(tmp_path / "b.tif"), [[300, 65535]])


def test_palette_with_transparency(tmp_path):
    indices = Image.new("P", (3, 1))
    indices.putdata([0, 1, 2])
    indices.putpalette([10, 20, 30, 200, 100, 50, 1, 2, 3])
    for name in ("a.png", "a.gif"):
        indices.save(tmp_path / name, transparency=1, optimize=False)
        np.testing.assert_array_equal(read_image(tmp_path / name)[0], [[10, 20, 30], [200, 100, 50], [1, 2, 3]])
        np.testing.assert_array_equal(read_mask(tmp_path / name), [[0, 1, 2]])


def test_an_empty_file(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(UserError, match=r"a\.png: not a readable image"):
        read_mask(tmp_path / "a.png")
