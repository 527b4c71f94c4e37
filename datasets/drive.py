"""DRIVE: retinal vessels, the 20 labelled training images of the official set."""

import re
from collections.abc import Mapping
from pathlib import Path

from datasets.io import read_mask
from datasets.sources import find_folder
from datasets.writer import SetWriter, binary_mask, random_split
from utils.errors import UserError

_NUMBERS = range(21, 41)
_SPLIT = {"train": 14, "test": 6}


def convert(source: Path | None, writer: SetWriter, *, seed: int) -> Mapping[str, str]:
    """Convert training/images with training/1st_manual; the official test images, labelled or not, aren't used.

    `mask/` holds the field of view and `2nd_manual` a second opinion of the test images: neither is the vessel mask.
    The split is the paper's 14 train and 6 test, drawn from `seed`.

    Raises: UserError that names the image or mask that is missing or odd.
    """
    training = _training_folder(source)
    images = _by_number(training / "images", "*_training.tif")
    masks = _by_number(training / "1st_manual", "*_manual1.gif")
    for number in _NUMBERS:
        for kind, found in (("images", images), ("1st_manual", masks)):
            if number not in found:
                raise UserError(f"{training.name}/{kind}: no file of image {number}; the set is not whole")
        vessels = binary_mask(read_mask(masks[number]), masks[number])
        writer.add(images[number].stem, images[number], vessels)
    return random_split(writer.names, _SPLIT, seed)


def _training_folder(source: Path | None) -> Path:
    """The folder of images/ and 1st_manual/, whether the source is DRIVE, holds DRIVE or is its training part."""
    try:
        return find_folder(source, "training/1st_manual") / "training"
    except UserError:
        if source is not None and any((source / "images").glob("*_training.tif")):
            return source
        raise


def _by_number(folder: Path, pattern: str) -> dict[int, Path]:
    """Files of a pattern by the two digits they begin with."""
    return {int(m[0]): path for path in sorted(folder.glob(pattern)) if (m := re.match(r"\d\d", path.name))}
