"""Files of every kind decode to known values; damaged ones are one-line errors that name them."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from datasets import io
from datasets.io import read_image, read_mask, read_size
from utils.errors import UserError

GREY = np.array([[0, 7, 255], [128, 1, 2]], np.uint8)
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], -1)
DEEP = np.array([[0, 1, 65535], [256, 4095, 40000]], np.uint16)


def grey_png(values: np.ndarray, depth: int, channels: int = 1, claimed: tuple[int, int] | None = None) -> bytes:
    """A PNG written by hand, of the depths and channels that Pillow can't write."""
    if depth == 16:
        rows = [row.astype(">u2").tobytes() for row in values]
    else:
        bits = [[f"{v:0{depth}b}" for v in row] for row in values.tolist()]
        joined = ["".join(row) for row in bits]
        rows = [int(row.ljust(-(-len(row) // 8) * 8, "0"), 2).to_bytes(-(-len(row) // 8), "big") for row in joined]

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    width, height = claimed or (values.shape[1], values.shape[0])
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "pgm", "gif"])
def test_eight_bit_grey(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(GREY).save(path)
    assert read_image(path).dtype == np.uint8
    np.testing.assert_array_equal(read_image(path), np.stack([GREY] * 3, -1))
    assert read_size(path) == (2, 3)


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "ppm"])
def test_eight_bit_colour(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(COLOUR).save(path)
    np.testing.assert_array_equal(read_image(path), COLOUR)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_alpha_is_dropped_not_composited(tmp_path, suffix):
    alpha = np.array([[0, 9, 255], [0, 0, 3]], np.uint8)
    Image.fromarray(np.dstack([COLOUR, alpha])).save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}"), COLOUR)
    Image.fromarray(np.dstack([GREY, alpha])).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_image(tmp_path / "b.png"), np.stack([GREY] * 3, -1))
    np.testing.assert_array_equal(read_mask(tmp_path / "b.png"), GREY)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_keeps_its_bits(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(DEEP).save(path)
    assert read_image(path).dtype == np.uint16
    np.testing.assert_array_equal(read_image(path)[..., 1], DEEP)
    np.testing.assert_array_equal(read_mask(path), DEEP)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_sixteen_bit_colour_and_alpha_png_keep_their_bits(tmp_path, channels):
    values = np.random.default_rng(0).integers(0, 65536, (4, 5, channels)).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(grey_png(values, 16, channels))
    expected = values[..., :3] if channels > 2 else np.repeat(values[..., :1], 3, -1)
    assert read_image(tmp_path / "a.png").dtype == np.uint16
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)


def test_jpeg_grey_colour_and_cmyk(tmp_path):
    flat = np.full((16, 16, 3), (200, 30, 90), np.uint8)
    for mode in ("RGB", "CMYK", "L"):
        image = Image.fromarray(flat).convert(mode)
        image.save(tmp_path / "a.jpg", quality=95)
        expected = np.asarray(image.convert("RGB"), int)
        assert np.abs(read_image(tmp_path / "a.jpg") - expected).max() <= 6, mode


def test_palette_image_is_looked_up_and_palette_mask_is_not(tmp_path):
    indices = Image.new("P", (2, 2))
    indices.putdata([0, 1, 2, 1])
    indices.putpalette([10, 20, 30, 200, 100, 50, 1, 2, 3])
    indices.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0], [[10, 20, 30], [200, 100, 50]])
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), [[0, 1], [2, 1]])


def test_one_bit(tmp_path):
    bits = np.array([[True, False], [False, True]])
    Image.fromarray(bits).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[..., 0], bits * 255)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), bits)
    assert read_mask(tmp_path / "a.png").dtype == np.uint8


@pytest.mark.parametrize(("depth", "white"), [(2, 3), (4, 15)])
def test_few_bit_png_shows_its_full_range_but_a_mask_keeps_its_values(tmp_path, depth, white):
    values = np.array([[0, 1, 2, white]])
    (tmp_path / "a.png").write_bytes(grey_png(values, depth))
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), values)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[..., 0], values * (255 // white))


def test_pgm_of_any_maxval(tmp_path):
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P2\n# made by hand # 9\n3 1\n2\n0 1 2\n")
    np.testing.assert_array_equal(read_mask(path), [[0, 1, 2]])
    np.testing.assert_array_equal(read_image(path)[..., 0], [[0, 128, 255]])
    path.write_bytes(b"P5 3 1 4095\n" + np.array([0, 1, 4095], ">u2").tobytes())
    assert read_image(path).dtype == np.uint16
    np.testing.assert_array_equal(read_image(path)[..., 0], [[0, 16, 65535]])
    np.testing.assert_array_equal(read_mask(path), [[0, 1, 4095]])


def test_first_frame_of_a_gif(tmp_path):
    frames = [Image.fromarray(np.full((2, 2), value, np.uint8)) for value in (40, 90)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read_image(tmp_path / "a.gif"), np.full((2, 2, 3), 40))


def test_exif_orientation_is_not_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(GREY).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[..., 0], GREY)


def test_a_mask_in_colour_needs_equal_channels(tmp_path):
    Image.fromarray(np.stack([GREY] * 3, -1)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), GREY)
    Image.fromarray(COLOUR).save(tmp_path / "b.png")
    with pytest.raises(UserError, match=r"b\.png: a mask in colour"):
        read_mask(tmp_path / "b.png")


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "gif", "bmp", "pgm", "ppm"])
def test_truncated_file(tmp_path, suffix):
    path = tmp_path / f"cut.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise if suffix != "pgm" else noise[..., 0]).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for read in (read_image, read_mask):
        with pytest.raises(UserError, match=rf"cut\.{suffix}: ") as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_text_named_png_missing_file_folder_and_floats(tmp_path):
    (tmp_path / "a.png").write_text("not an image")
    with pytest.raises(UserError, match=r"a\.png: not a readable image"):
        read_image(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"b\.png: no such file"):
        read_image(tmp_path / "b.png")
    with pytest.raises(UserError, match="no such file"):
        read_image(tmp_path)
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "c.tif")
    for read in (read_image, read_mask):
        with pytest.raises(UserError, match=r"c\.tif: "):
            read(tmp_path / "c.tif")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_file_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    monkeypatch.setattr(io, "MAX_PIXELS", 5)
    with pytest.raises(UserError, match=r"a\.png: 3 x 2 pixels, over the limit of 5"):
        read_image(tmp_path / "a.png")
    monkeypatch.undo()
    for side in (10_000, 60_000):
        (tmp_path / "b.png").write_bytes(grey_png(np.zeros((1, 1), int), 2, claimed=(side, side)))
        with pytest.raises(UserError, match=r"b\.png: .*(limit|bomb)"):
            read_image(tmp_path / "b.png")


@pytest.mark.parametrize("read", [read_size, read_image, read_mask])
def test_postscript_named_png_is_no_image(tmp_path, read):
    """Pillow would hand it to Ghostscript, an interpreter of programs."""
    (tmp_path / "a.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n%%EOF\n")
    with pytest.raises(UserError, match=r"a\.png: not a readable image \(cannot identify"):
        read(tmp_path / "a.png")
