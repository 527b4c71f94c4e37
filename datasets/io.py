"""Reading image and mask files of any common kind into arrays.

EXIF orientation is not applied: an image and its mask come from different programs, and turning only the one that
carries the tag would set them apart. (TIFF's baseline Orientation tag is part of decoding a TIFF, and is applied.)
"""

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from utils.errors import UserError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".bmp", ".pgm", ".ppm", ".pbm", ".pnm"})

# A file whose header promises more pixels than this is refused before it is decoded. Below Pillow's own warning level.
MAX_PIXELS = 80_000_000

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_GREY, _PNG_PALETTE = 0, 3
_EIGHT_BIT_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
_T = TypeVar("_T")


def read_image(path: str | Path) -> np.ndarray:
    """Return an image as (H, W, 3), uint8 or uint16 as the file's own bit depth is.

    Grey is repeated, alpha is dropped (not composited), palettes are looked up, 1-bit becomes 0/255, CMYK becomes
    RGB, the first frame of a GIF or TIFF is taken. A PGM or PPM whose maxval is not 255 or 65535 is scaled to the full
    range, since maxval means white.

    Raises: UserError that names the file, if it is missing, unreadable, truncated, too large, of floats, or a TIFF or
        PPM of more than 8 bits a colour.
    """
    return _read(Path(path), _image_values)


def read_mask(path: str | Path) -> np.ndarray:
    """Return a mask as (H, W) integers, the values as stored.

    Palette files give indices and 1-bit files 0/1; a 2- or 4-bit PNG and a PGM or PPM of any maxval give what the file
    holds, not what a viewer shows. Colour files pass only if their channels agree; alpha is dropped.

    Raises: UserError that names the file, if it is missing, unreadable, truncated, too large, coloured or of floats.
    """
    return _read(Path(path), _mask_values)


def read_size(path: str | Path) -> tuple[int, int]:
    """Return (H, W) from the header alone. Raises: UserError that names the file."""
    return _read(Path(path), lambda image, _: (image.height, image.width))


def _read(path: Path, values: Callable[[Image.Image, Path], _T]) -> _T:
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UserError(f"{path}: {image.width} x {image.height} pixels, over the limit of {MAX_PIXELS}")
            return values(image, path)
    except UserError:
        raise
    except Image.DecompressionBombError:  # far over the limit
        raise UserError(f"{path}: over the limit of {MAX_PIXELS} pixels") from None
    except Exception as error:  # decoders raise anything on damaged files: OSError, ValueError, struct.error, ...
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: not a readable image ({reason}); replace the file") from error


def _image_values(image: Image.Image, path: Path) -> np.ndarray:
    image.load()
    if _is_deep_colour_png(path):
        return _as_rgb(_decode_deep_png(path))
    _refuse_deep_colour(image, path)
    if image.mode in _EIGHT_BIT_MODES:
        return np.array(image.convert("RGB"))
    return _as_rgb(_sixteen_bits(np.asarray(image), path)[..., None])


def _mask_values(image: Image.Image, path: Path) -> np.ndarray:
    image.load()
    if _is_deep_colour_png(path):
        return _one_channel(_decode_deep_png(path), path)
    _refuse_deep_colour(image, path)
    if image.mode == "1":
        return np.array(image).astype(np.uint8)
    if image.mode in ("L", "P", "I", "I;16", "I;16L", "I;16B", "I;16N"):
        return _unscale(np.array(image), path)
    if image.mode == "PA":
        return np.array(image)[..., 0]
    if image.mode in ("LA", "RGB", "RGBA", "RGBX"):
        return _unscale(_one_channel(np.array(image), path), path)
    raise UserError(f"{path}: a mask of mode {image.mode}; save it as a grey or palette PNG of label indices")


def _sixteen_bits(values: np.ndarray, path: Path) -> np.ndarray:
    if not np.issubdtype(values.dtype, np.integer) or values.min() < 0 or values.max() > 65535:
        raise UserError(f"{path}: values of type {values.dtype} outside 0..65535; save it with 8 or 16 bits")
    return values.astype(np.uint16)


def _as_rgb(values: np.ndarray) -> np.ndarray:
    """(H, W, 1 to 4) -> (H, W, 3): grey repeated, alpha dropped."""
    colour = values[..., :3] if values.shape[-1] >= 3 else values[..., :1]
    return np.ascontiguousarray(np.broadcast_to(colour, (*values.shape[:2], 3)))


def _one_channel(values: np.ndarray, path: Path) -> np.ndarray:
    colour = values[..., :3] if values.shape[-1] >= 3 else values[..., :1]
    if (colour != colour[..., :1]).any():
        raise UserError(f"{path}: a mask in colour; save it as a grey or palette PNG of label indices")
    return np.ascontiguousarray(colour[..., 0])


def _unscale(values: np.ndarray, path: Path) -> np.ndarray:
    """Undo the scaling to the full range that the decoder does to files of fewer grey levels."""
    stored = _grey_levels(path)
    if stored is None:
        return values
    full = 255 if stored <= 255 else 65535
    return np.rint(values * (stored / full)).astype(np.uint16)


def _grey_levels(path: Path) -> int | None:
    """The value that means white in a PGM, a PPM or a 2- or 4-bit grey PNG; None where nothing was scaled."""
    with open(path, "rb") as file:
        head = file.read(4096)
    if head[:2] in (b"P2", b"P3", b"P5", b"P6"):
        return int(re.sub(rb"#[^\n]*", b" ", head).split()[3])
    depth, colour_type = _png_depth(head)
    return 2**depth - 1 if colour_type == _PNG_GREY and depth in (2, 4) else None


def _png_depth(head: bytes) -> tuple[int, int]:
    """(bit depth, colour type) of a PNG's header; (0, palette) for any other file."""
    return struct.unpack("BB", head[24:26]) if head.startswith(_PNG_MAGIC) else (0, _PNG_PALETTE)


def _is_deep_colour_png(path: Path) -> bool:
    """Whether it is a 16-bit PNG with colour or alpha, which Pillow cuts to 8 bits without a word."""
    with open(path, "rb") as file:
        depth, colour_type = _png_depth(file.read(26))
    return depth == 16 and colour_type != _PNG_GREY


def _decode_deep_png(path: Path) -> np.ndarray:
    """(H, W, 2 to 4) uint16."""
    import torch
    from torchvision.io import ImageReadMode, decode_png

    data = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
    return decode_png(data, ImageReadMode.UNCHANGED).numpy().transpose(1, 2, 0)


def _refuse_deep_colour(image: Image.Image, path: Path) -> None:
    """Refuse colour of more than 8 bits in the formats where Pillow cuts it to 8 without a word."""
    if image.mode not in _EIGHT_BIT_MODES:
        return
    bits = max(np.atleast_1d(getattr(image, "tag_v2", {}).get(258, 8)))
    levels = _grey_levels(path)
    if bits > 8 or (levels is not None and levels > 255):
        raise UserError(f"{path}: more than 8 bits a colour in a file of kind {image.format}; save it as a 16-bit PNG")
