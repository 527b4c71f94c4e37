"""Bit depths and value ranges that decoders silently cut or stretch are kept, restored or refused."""

import struct

import numpy as np
import pytest
from PIL import Image

from datasets.io import read_image, read_mask, read_size
from utils.errors import UserError

PHOTOMETRIC, ORIENTATION, PLANAR, EXTRA_SAMPLES = 262, 274, 284, 338


def tiff(bits: int, channels: int, pixels: bytes, more: dict[int, int] | None = None) -> bytes:
    """An uncompressed TIFF of 2 x 1 pixels, of the depths and layouts that Pillow can't write; `more` tags."""
    tags = {256: [2], 257: [1], 258: [bits] * channels, 259: [1], PHOTOMETRIC: [2 if channels > 2 else 1]}
    tags |= {277: [channels], 278: [1]} | {tag: [value] for tag, value in (more or {}).items()}
    planes = channels if tags.get(PLANAR) == [2] else 1
    size = len(pixels) // planes
    start = 8 + 2 + 12 * (len(tags) + 2) + 4
    tags |= {273: [start + size * plane for plane in range(planes)], 279: [size] * planes}
    entries, after = b"", pixels
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"<{len(values)}H", *values)
        if len(packed) > 4:
            packed, after = struct.pack("<L", start + len(after)), after + packed
        entries += struct.pack("<HHL", tag, 3, len(values)) + packed.ljust(4, b"\0")
    return b"II*\0" + struct.pack("<LH", 8, len(tags)) + entries + bytes(4) + after


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


DEEP = np.array([[[256, 770, 65535], [1284, 1798, 2312]]], np.uint16)
GREY_AND_ALPHA = np.array([[[256, 256, 256, 7], [1284, 1284, 1284, 0]]], np.uint16)


def test_sixteen_bit_colour_tiff_keeps_its_bits(tmp_path):
    path = tmp_path / "a.tif"
    for more, expected in (({}, DEEP), ({ORIENTATION: 3}, DEEP[:, ::-1]), ({ORIENTATION: 6}, DEEP.transpose(1, 0, 2))):
        path.write_bytes(tiff(16, 3, DEEP.tobytes(), more))
        assert read_size(path) == expected.shape[:2]
        assert read_image(path).dtype == np.uint16
        np.testing.assert_array_equal(read_image(path), expected)
    with pytest.raises(UserError, match=r"a\.tif: a mask in colour"):
        read_mask(path)
    path.write_bytes(tiff(16, 4, GREY_AND_ALPHA.tobytes(), {EXTRA_SAMPLES: 2}))
    np.testing.assert_array_equal(read_image(path), GREY_AND_ALPHA[..., :3])
    np.testing.assert_array_equal(read_mask(path), GREY_AND_ALPHA[..., 0])


@pytest.mark.parametrize("kind", ["P6", "P3"])
@pytest.mark.parametrize("white", [256, 4095, 65535])
def test_deep_colour_ppm_is_stretched_and_a_mask_keeps_its_values(tmp_path, kind, white):
    for values, read in (([[[0, 1, white]]], read_image), ([[[white] * 3, [2] * 3]], read_mask)):
        values = np.array(values)
        pixels = values.astype(">u2").tobytes() if kind == "P6" else " ".join(map(str, values.ravel())).encode()
        path = tmp_path / "a.ppm"
        path.write_bytes(f"{kind} {values.shape[1]} 1 {white}\n".encode() + pixels)
        expected = np.rint(values * (65535 / white)) if read is read_image else values[..., 0]
        assert read(path).dtype == np.uint16
        np.testing.assert_array_equal(read(path), expected)


@pytest.mark.parametrize(
    ("channels", "more"),
    [
        (3, {PLANAR: 2}),
        (4, {PHOTOMETRIC: 5}),  # CMYK
        (4, {EXTRA_SAMPLES: 1}),  # premultiplied alpha
    ],
)
def test_deep_colour_in_other_layouts_is_refused(tmp_path, channels, more):
    (tmp_path / "a.tif").write_bytes(tiff(16, channels, bytes(range(4 * channels)), more))
    for read in (read_image, read_mask):
        with pytest.raises(UserError, match=r"a\.tif: more than 8 bits a colour .* save it as a 16-bit PNG"):
            read(tmp_path / "a.tif")


def test_four_bit_grey_tiff_mask_keeps_its_values(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff(4, 1, bytes([0x2F])))
    np.testing.assert_array_equal(read_mask(tmp_path / "a.tif"), [[2, 15]])
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[..., 0], [[34, 255]])


def test_eight_bit_colour_tiff_by_hand_is_read(tmp_path):
    # Shows that the files above are refused for their layouts, not for how they are written.
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
