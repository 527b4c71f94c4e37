"""Writing a data set: images/, masks/, data_split.csv."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from datasets.converters.plan import Case
from datasets.parallel import parallel_map
from datasets.preparation.partition import group_of
from datasets.split import COLUMNS, FOLD_COLUMNS
from utils.errors import UserError

# Level 3 is three times as fast as PNG's default and makes photographs 3% larger.
_COMPRESSION = 3


def write_png(path: Path, values: np.ndarray, note: tuple[str, str] | None = None) -> None:
    """Write (H, W) or (H, W, 3), uint8 or uint16, as PNG; three equal channels become one.

    `note` is a keyword and its text, kept in the file.

    Raises: UserError for 16-bit colour, which Pillow cannot write.
    """
    if values.ndim == 3 and (values == values[..., :1]).all():
        values = values[..., 0]
    elif values.ndim == 3 and values.dtype == np.uint16:
        raise UserError(f"{path.name}: 16-bit colour cannot be written as PNG; convert it to 8 bits first")
    text = PngInfo()
    if note:
        text.add_text(*note)
    Image.fromarray(np.ascontiguousarray(values)).save(path, format="PNG", compress_level=_COMPRESSION, pnginfo=text)


def write_cases(root: Path, cases: Sequence[Case], title: str) -> None:
    """Write images/ and masks/ of all cases under `root`, as PNGs, on all cores.

    Raises: UserError that names the image: two of the same name, a mask of another size or with values above 255, or a
        case that cannot be read.
    """
    for name, number in Counter(case.name.lower() for case in cases).items():
        if number > 1:  # some file systems ignore the case of letters
            raise UserError(f"{name}: two images of this name in one set")
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    parallel_map(partial(_write_case, root), cases, title)


def _write_case(root: Path, case: Case) -> None:
    image, mask = case.read()
    if image.shape[:2] != mask.shape:
        raise UserError(f"{case.stem}: image of {image.shape[:2]}, but mask of {mask.shape} (height, width)")
    if mask.dtype == bool:
        mask = mask * np.uint8(255)
    elif mask.max() > 255:
        raise UserError(f"{case.stem}: a mask with label {mask.max()}; the largest allowed is 255")
    write_png(root / "images" / case.name, image)
    write_png(root / "masks" / case.name, mask.astype(np.uint8))


def write_split(
    root: Path, cases: Sequence[Case], splits: Mapping[str, str], folds: Mapping[str, int] | None = None
) -> None:
    """Write data_split.csv: one row per case, in order, with fold and group if there are folds."""
    with open(root / "data_split.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS if folds is None else (*COLUMNS, *FOLD_COLUMNS))
        for case in cases:
            row = (case.name, splits[case.name])
            rows.writerow(row if folds is None else (*row, folds[case.name], group_of(case)))
