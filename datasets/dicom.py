"""Reads DICOM images, such as X-ray angiograms, as a viewer shows them. Needs the optional package pydicom.

Stored values pass the file's rescale slope and intercept, then its first window, which maps to 0 (black) to 65535
(white). Without a window, the range of the stored bits maps to them. MONOCHROME1, where low values are white, is
inverted.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from datasets.io import MAX_PIXELS
from utils.errors import UserError, first_line
from utils.extras import extra

DICOM_SUFFIXES = frozenset({".dcm", ".dicom"})
WHITE = 65535
MAX_FRAMES = 100_000
_MAGIC_AT, _MAGIC = 128, b"DICM"


def is_dicom(path: Path) -> bool:
    """Whether it is a DICOM file: by its suffix, or else by its first bytes."""
    if path.suffix.lower() in DICOM_SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            return file.read(_MAGIC_AT + len(_MAGIC))[_MAGIC_AT:] == _MAGIC
    except OSError:
        return False


def frame_count(path: Path) -> int:
    """Return the number of frames by the file's header. Raises: UserError as `read_frames` does."""
    header = _header(path)
    try:
        count = int(header.get("NumberOfFrames") or 1)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: its number of frames is no number ({first_line(error)}); replace the file") from None
    if not 1 <= count <= MAX_FRAMES:
        raise UserError(f"{path}: promises {count} frames, and 1 to {MAX_FRAMES} are read; replace the file")
    return count


def read_frames(path: Path) -> Iterator[np.ndarray]:
    """Yield the frames of a DICOM file: (H, W, 3) uint16, 0 black and 65535 white.

    Raises:
        UserError: one line that names the file, if pydicom is missing, or the file is unreadable, truncated, too large,
            in colour, without pixels, or in a compression that no installed decoder reads.
    """
    header = _header(path)
    try:
        _check(header, path)
        for frame in extra("pydicom.pixels", f"{path}: a DICOM file").iter_pixels(path):
            windowed = _windowed(frame, header)
            if not np.isfinite(windowed).all():
                raise UserError(f"{path}: its rescale or window gives values that are not finite; replace the file")
            grey = _to_uint16(windowed, header)
            yield np.broadcast_to(grey[..., None], (*grey.shape, 3))
    except UserError:
        raise
    except Exception as error:  # decoders raise anything on damaged files
        raise UserError(f"{path}: {_decoding_error(header, error)}") from error


def _header(path: Path) -> Any:
    """Read the file without its pixels."""
    pydicom = extra("pydicom", f"{path}: a DICOM file")
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        return pydicom.dcmread(path, stop_before_pixels=True)
    except Exception as error:
        raise UserError(f"{path}: not a readable DICOM file ({first_line(error)}); replace the file") from error


def _check(header: Any, path: Path) -> None:
    rows, columns = header.get("Rows"), header.get("Columns")
    if not rows or not columns:
        raise UserError(f"{path}: a DICOM file without an image")
    if rows * columns > MAX_PIXELS:
        raise UserError(f"{path}: {columns} x {rows} pixels, over the limit of {MAX_PIXELS}")
    kind = header.get("PhotometricInterpretation")
    if kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise UserError(f"{path}: a DICOM image of kind {kind}; only grey ones are read, save it as a PNG")


def _windowed(frame: np.ndarray, header: Any) -> np.ndarray:
    """Map stored values to (H, W) float64, 0 black and 1 white: DICOM PS3.3 C.11.1 and C.11.2."""
    pixels = extra("pydicom.pixels", "DICOM")
    values = pixels.apply_modality_lut(frame, header).astype(np.float64)
    if "VOILUTSequence" in header:
        top = 2 ** int(header.VOILUTSequence[0].LUTDescriptor[2]) - 1
        return np.clip(pixels.apply_voi(values.astype(np.int64), header) / top, 0, 1)
    centre, width = _first(header.get("WindowCenter")), _first(header.get("WindowWidth"))
    if centre is None or width is None or width <= 0:
        low, high = _stored_range(header)
        return (values - low) / (high - low)
    function = str(header.get("VOILUTFunction") or "LINEAR").upper()
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (values - centre) / width))
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0, 1)
    return np.clip((values - (centre - 0.5)) / max(width - 1, 1e-9) + 0.5, 0, 1)


def _stored_range(header: Any) -> tuple[float, float]:
    """Return the range of the stored bits after the rescale."""
    bits = int(header.BitsStored)
    ends = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if header.PixelRepresentation else (0, 2**bits - 1)
    if "ModalityLUTSequence" in header:
        return 0.0, float(2 ** int(header.ModalityLUTSequence[0].LUTDescriptor[2]) - 1)
    slope, intercept = float(header.get("RescaleSlope") or 1), float(header.get("RescaleIntercept") or 0)
    low, high = sorted(slope * end + intercept for end in ends)
    return low, high


def _to_uint16(grey: np.ndarray, header: Any) -> np.ndarray:
    """Clip (H, W) to 0..1 and convert it to uint16, inverted for MONOCHROME1."""
    shown = 1 - grey if header.PhotometricInterpretation == "MONOCHROME1" else grey
    return np.rint(np.clip(shown, 0, 1) * WHITE).astype(np.uint16)


def _first(value: Any) -> float | None:
    """Return a number, the first of a list of numbers, or None for an absent value."""
    if value is None or value == "":
        return None
    try:
        return float(value)
    except TypeError:
        return float(value[0]) if len(value) else None


def _decoding_error(header: Any, error: Exception) -> str:
    syntax = getattr(getattr(header, "file_meta", None), "TransferSyntaxUID", None)
    if syntax is not None and syntax.is_compressed and "plugin" in str(error):
        return (
            f"its pixels are compressed as {syntax.name}, which needs another decoder; "
            "pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg, or save it uncompressed"
        )
    return f"not a readable DICOM image ({first_line(error)}); replace the file"
