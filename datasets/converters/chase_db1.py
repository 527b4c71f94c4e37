"""CHASE_DB1: retinal vessels, both eyes of 14 children."""

from pathlib import Path

from datasets.converters.field_of_view import by_threshold
from datasets.converters.plan import Case, Plan, check_pairs, pair_reader
from datasets.converters.search import find_in_source, match_files

_SPLIT_SIZES = {"train": 20, "test": 8}


def convert(source: Path | None, *, seed: int, observer: int = 1, fov_threshold: int | None = None) -> Plan:
    """Pair Image_01L.jpg with Image_01L_1stHO.png, a 1-bit file. Both eyes of a child go to the same split.

    The set has no official split and is not in the paper. 20 train and 8 test images are drawn, the sizes that
    publications commonly use.

    Args:
        observer: 1 or 2, whose masks to use.
        fov_threshold: adds fields of view, see `by_threshold`; the set comes without.

    Raises: UserError that names what is missing.
    """
    kind = ("1stHO", "2ndHO")[observer - 1]
    folder = find_in_source(source, f"Image_01L_{kind}.png", "Image_01L.jpg").parent
    images = match_files(folder, r"Image_(\d\d)([LR])\.jpg", lambda child, eye: (child, eye.upper()))
    masks = match_files(folder, rf"Image_(\d\d)([LR])_{kind}\.png", lambda child, eye: (child, eye.upper()))
    check_pairs(images, masks, kind)
    return Plan(
        [
            Case(image.stem, pair_reader(image, masks[eye]), group=eye[0], fov=by_threshold(fov_threshold))
            for eye, image in images.items()
        ],
        _SPLIT_SIZES,
    )
