"""Writing a data set: images/, masks/, data_split.csv."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from datasets.converters.plan import Case
from datasets.parallel import parallel_map
from datasets.preparation.data_config import Written
from datasets.preparation.partition import group_of
from datasets.split import COLUMNS, SPLIT_FILE
from utils.errors import UserError
from utils.files import csv_text, write_text

# Level 3 is three times as fast as PNG's default and makes photographs 3% larger.
_COMPRESSION = 3


def write_png(
    path: Path, values: np.ndarray, note: tuple[str, str] | None = None, palette: bytes | None = None
) -> None:
    """Write (H, W) or (H, W, 3), uint8 or uint16, as PNG; three equal channels become one.

    `note` is a keyword and its text, kept in the file. `palette` holds 256 colours, RGB, of (H, W) uint8.

    Raises: UserError for 16-bit colour, which Pillow cannot write.
    """
    if values.ndim == 3 and (values == values[..., :1]).all():
        values = values[..., 0]
    elif values.ndim == 3 and values.dtype == np.uint16:
        raise UserError(f"{path.name}: 16-bit colour cannot be written as PNG; convert it to 8 bits first")
    text = PngInfo()
    if note:
        text.add_text(*note)
    image = Image.fromarray(np.ascontiguousarray(values))
    if palette:
        image.putpalette(palette)
    image.save(path, format="PNG", compress_level=_COMPRESSION, pnginfo=text)


def write_cases(root: Path, cases: Sequence[Case], title: str) -> list[Written]:
    """Write images/, masks/ and, where cases have it, fov/, as PNGs, on all cores; return what was written.

    Raises: UserError that names the image: two of the same name, a mask of another size or with values above 255, or a
        case that cannot be read.
    """
    for name, number in Counter(case.name.lower() for case in cases).items():
        if number > 1:  # some file systems ignore the case of letters
            raise UserError(f"{name}: two images of this name in one set")
    for folder in ("images", "masks", *(["fov"] if any(case.fov for case in cases) else [])):
        (root / folder).mkdir(parents=True)
    return parallel_map(partial(_write_case, root), cases, title)


def _write_case(root: Path, case: Case) -> Written:
    image, mask = case.read()
    if image.shape[:2] != mask.shape:
        raise UserError(f"{case.stem}: image of {image.shape[:2]}, but mask of {mask.shape} (height, width)")
    if mask.dtype == bool:
        mask = mask * np.uint8(255)
    elif mask.max() > 255:
        raise UserError(f"{case.stem}: a mask with label {mask.max()}; the largest allowed is 255")
    write_png(root / "images" / case.name, image)
    write_png(root / "masks" / case.name, mask.astype(np.uint8))
    if case.fov:
        write_png(root / "fov" / case.name, case.fov(image) * np.uint8(255))
    brightest = int(image.max()) if image.dtype == np.uint16 else None
    return Written(mask.shape, tuple(np.unique(mask).tolist()), brightest)


def write_split(
    root: Path, cases: Sequence[Case], splits: Mapping[str, str], folds: Mapping[str, int] | None = None
) -> None:
    """Write data_split.csv: one row per case, in order, with folds where there are some, and with groups."""
    grouped = folds is not None or any(case.group is not None for case in cases)
    columns = [*COLUMNS, *(["fold"] if folds is not None else []), *(["group"] if grouped else [])]
    rows = []
    for case in cases:
        fold = [folds.get(case.name, "")] if folds is not None else []
        rows.append([case.name, splits[case.name], *fold, *([group_of(case)] if grouped else [])])
    write_text(root / SPLIT_FILE, csv_text(columns, rows))
