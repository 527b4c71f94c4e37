"""DRIVE: retinal vessels, 20 labelled training images and 20 official test images."""

from pathlib import Path

from datasets.converters.field_of_view import from_file
from datasets.converters.plan import Case, Plan, pair_reader
from datasets.converters.search import find_in_source, match_files
from utils.errors import ConfigError, UserError

DIGESTS = {
    "training.zip": "sha256:7101e19598e2b7aacdbd5e6e7575057b9154a4aaec043e0f4e28902bf4e2e209",
    "test.zip": "sha256:d76c95c98a0353487ffb63b3bb2663c00ed1fde7d8fdfd8c3282c6e310a02731",
}

_NUMBERS = {"training": range(21, 41), "test": range(1, 21)}
_SPLIT_SIZES = {"train": 14, "test": 6}


def convert(
    source: Path | None, *, seed: int, split: str = "paper", observer: int = 1, include_test: bool = False
) -> Plan:
    """Pair training/images with training/1st_manual. The folder mask/ holds the fields of view; it may be missing.

    Args:
        split: `paper`: 14 train and 6 test, drawn from the 20 training images. `official`: the 20 training images for
            training, the 20 official test images for testing.
        observer: 2 takes the masks of the official test images from 2nd_manual. The training images have one observer.
        include_test: add the official test images to the test images of the paper's split: 14 train and 26 test.

    Raises: UserError that names what is missing; ConfigError for observer 2 without test images.
    """
    with_test = include_test or split == "official"
    if observer == 2 and not with_test:
        raise ConfigError("--observer 2: the second observer saw the official test images only; add --include-test")
    drawn = split == "paper"
    cases = _cases(source, "training", "1st_manual", None if drawn else "train")
    if with_test:
        cases += _cases(source, "test", "1st_manual" if observer == 1 else "2nd_manual", "test")
    return Plan(cases, _SPLIT_SIZES if drawn else {})


def _cases(source: Path | None, part: str, observer: str, split: str | None) -> list[Case]:
    folder = find_in_source(source, f"{part}/images").parent
    images = match_files(folder / "images", rf"(\d\d)_{part}\.tif", int)
    masks = match_files(folder / observer, rf"(\d\d)_manual{observer[0]}\.gif", int)
    for number in _NUMBERS[part]:
        for kind, found in (("images", images), (observer, masks)):
            if number not in found:
                more = "; the official test.zip may come without it" if part == "test" and kind != "images" else ""
                raise UserError(f"{folder / kind}: no file of image {number:02d}; the set is incomplete{more}")
    fields = match_files(folder / "mask", rf"(\d\d)_{part}_mask\.gif", int)
    if fields and (missing := sorted(set(_NUMBERS[part]) - set(fields))):
        raise UserError(f"{folder / 'mask'}: no file of image {missing[0]:02d}; the set is incomplete")
    return [
        Case(images[n].stem, pair_reader(images[n], masks[n]), split, fov=from_file(fields[n]) if fields else None)
        for n in _NUMBERS[part]
    ]
