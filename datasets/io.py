"""Reads image and mask files of common formats into arrays.

EXIF orientation is not applied: image and mask come from different programs, and the tag may stand in one of them only.
TIFF's own Orientation tag is part of its format, and is applied.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageFile

from utils.errors import UserError, first_line

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".bmp", ".pgm", ".ppm", ".pbm", ".pnm"})

# A file with more pixels than this in its header is refused before it is decoded. Below Pillow's own warning level.
MAX_PIXELS = 80_000_000

# The only formats Pillow may try, whatever the suffix. It would hand PostScript to Ghostscript, which runs programs.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF")
_EIGHT_BIT_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
# Layouts of 16-bit colour that OpenCV decodes correctly. It garbles planar files and takes CMYK for RGBA.
_DEEP_COLOUR = re.compile(r"(LA|RGB|RGBA|RGBX);16.")
_FEW_BIT_GREY = re.compile(r"L;([24])")
_T = TypeVar("_T")


class _Stored(NamedTuple):
    """How a file stores its pixels, by its header.

    Attributes:
        layout: Pillow's name for channels and bits, such as "RGB;16B".
        white: the value that means white, in a PGM, a PPM or grey of 2 or 4 bits; None if it is the dtype's maximum.
        bits: bits of a channel in a TIFF; 8 for other formats.
    """

    layout: str
    white: int | None
    bits: int


def read_image(path: str | Path) -> np.ndarray:
    """Return an image as (H, W, 3), uint8 or uint16 as the file's own bit depth is.

    Grey is repeated, alpha is dropped (not composited), palettes are looked up, 1-bit becomes 0/255, CMYK becomes
    RGB, the first frame of a GIF or TIFF is taken. A PGM or PPM whose maxval is not 255 or 65535 is scaled to the full
    range, since maxval means white.

    Raises: UserError that names the file, if it is missing, unreadable, truncated, too large, of floats, or a TIFF of
        more than 8 bits a colour in CMYK, in planes or with premultiplied alpha.
    """
    return _read(Path(path), _image_values)


def read_mask(path: str | Path) -> np.ndarray:
    """Return a mask as (H, W) integers, the values as stored.

    Palette files give indices and 1-bit files 0/1; grey of 2 or 4 bits and a PGM or PPM of any maxval give what the
    file holds, not what a viewer shows. Colour files pass only if their channels agree; alpha is dropped.

    Raises: UserError that names the file, if its channels differ, or as `read_image` does.
    """
    return _read(Path(path), _mask_values)


def read_size(path: str | Path) -> tuple[int, int]:
    """Return (H, W) from the header alone. Raises: UserError that names the file."""
    return _read(Path(path), lambda image, _: (image.height, image.width))


def _read(path: Path, values: Callable[[ImageFile.ImageFile, Path], _T]) -> _T:
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with Image.open(path, formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UserError(f"{path}: {image.width} x {image.height} pixels, over the limit of {MAX_PIXELS}")
            return values(image, path)
    except UserError:
        raise
    except Image.DecompressionBombError:  # far over the limit
        raise UserError(f"{path}: over the limit of {MAX_PIXELS} pixels") from None
    except Exception as error:  # decoders raise anything on damaged files: OSError, ValueError, struct.error, ...
        raise UserError(f"{path}: not a readable image ({first_line(error)}); replace the file") from error


def _image_values(image: ImageFile.ImageFile, path: Path) -> np.ndarray:
    stored = _stored(image)
    image.load()  # raises for truncated files, which OpenCV may accept
    if _is_deep_colour(image, stored):
        values = _decode_deep_colour(image, stored, path)
        return _as_rgb(values if stored.white is None else np.rint(values * (65535 / stored.white)).astype(np.uint16))
    if image.mode in _EIGHT_BIT_MODES:
        return np.array(image.convert("RGB"))
    return _as_rgb(_sixteen_bits(np.asarray(image), path)[..., None])


def _mask_values(image: ImageFile.ImageFile, path: Path) -> np.ndarray:
    stored = _stored(image)
    image.load()
    if _is_deep_colour(image, stored):
        return _one_channel(_decode_deep_colour(image, stored, path), path)
    if image.mode == "1":
        return np.array(image).astype(np.uint8)
    if image.mode in ("L", "P", "I", "I;16", "I;16L", "I;16B", "I;16N"):
        return _unscale(np.array(image), stored)
    if image.mode == "PA":
        return np.array(image)[..., 0]
    if image.mode in ("LA", "RGB", "RGBA", "RGBX"):
        return _unscale(_one_channel(np.array(image), path), stored)
    raise UserError(f"{path}: a mask of mode {image.mode}; save it as a grey or palette PNG of label indices")


def _stored(image: ImageFile.ImageFile) -> _Stored:
    """Read it from an image that is not loaded yet, since Pillow drops the tiles on loading."""
    arguments = image.tile[0].args if image.tile else None
    layout, *rest = arguments if isinstance(arguments, tuple) else (arguments,)
    grey = _FEW_BIT_GREY.match(str(layout))
    white = 2 ** int(grey[1]) - 1 if grey else rest[0] if image.format == "PPM" and rest else None
    bits = max(np.atleast_1d(getattr(image, "tag_v2", {}).get(258, 8)))
    return _Stored(str(layout), white, int(bits))


def _is_deep_colour(image: Image.Image, stored: _Stored) -> bool:
    """Whether it has more than 8 bits a colour, which Pillow silently cuts to 8."""
    deep = ";16" in stored.layout or stored.bits > 8 or (stored.white or 0) > 255
    return deep and image.mode in _EIGHT_BIT_MODES


def _decode_deep_colour(image: Image.Image, stored: _Stored, path: Path) -> np.ndarray:
    """Decode to (H, W, 3) uint16, the values as stored; alpha is dropped."""
    import cv2

    values = None
    if _DEEP_COLOUR.match(stored.layout) or image.format == "PPM":
        content = path.read_bytes() + b"\n"  # OpenCV needs it after the last number of a plain PPM
        values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.shape[:2] != (image.height, image.width):
        raise UserError(f"{path}: more than 8 bits a colour in a file of kind {image.format}; save it as a 16-bit PNG")
    return values[..., 2::-1]  # (H, W, BGR or BGRA)


def _sixteen_bits(values: np.ndarray, path: Path) -> np.ndarray:
    if not np.issubdtype(values.dtype, np.integer) or values.min() < 0 or values.max() > 65535:
        raise UserError(f"{path}: values of type {values.dtype} outside 0..65535; save it with 8 or 16 bits")
    return values.astype(np.uint16)


def _as_rgb(values: np.ndarray) -> np.ndarray:
    """(H, W, 1 or 3) -> (H, W, 3)."""
    return np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3)))


def _one_channel(values: np.ndarray, path: Path) -> np.ndarray:
    """(H, W, 2 to 4) -> (H, W): alpha is dropped."""
    colour = values[..., :3] if values.shape[-1] >= 3 else values[..., :1]
    if (colour != colour[..., :1]).any():
        raise UserError(f"{path}: a mask in colour; save it as a grey or palette PNG of label indices")
    return np.ascontiguousarray(colour[..., 0])


def _unscale(values: np.ndarray, stored: _Stored) -> np.ndarray:
    """Undo Pillow's scaling of fewer grey levels to the full range."""
    if stored.white is None:
        return values
    full = 255 if stored.white <= 255 else 65535
    return np.rint(values * (stored.white / full)).astype(np.uint16)
