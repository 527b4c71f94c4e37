"""CHASE_DB1: retinal vessels, both eyes of 14 children."""

from pathlib import Path

from datasets.converters.plan import Case, Plan, one_to_one, pair_of_files
from datasets.converters.search import files_by, find_path

_DRAW = {"train": 20, "test": 8}


def convert(source: Path | None, *, seed: int, observer: int = 1) -> Plan:
    """Pair Image_01L.jpg with Image_01L_1stHO.png, a 1-bit file. The two eyes of a child stay together.

    The set has no official split and isn't in the paper: 20 train and 8 test, sizes common in publications, are drawn
    child by child.

    Args:
        observer: 2 takes the masks of the second observer.

    Raises: UserError that names what is missing.
    """
    kind = ("1stHO", "2ndHO")[observer - 1]
    folder = find_path(source, f"Image_01L_{kind}.png", "Image_01L.jpg").parent
    images = files_by(folder, r"Image_(\d\d)([LR])\.jpg", lambda child, eye: (child, eye.upper()))
    masks = files_by(folder, rf"Image_(\d\d)([LR])_{kind}\.png", lambda child, eye: (child, eye.upper()))
    one_to_one(images, masks, kind)
    return Plan(
        [Case(image.stem, pair_of_files(image, masks[eye]), group=eye[0]) for eye, image in images.items()], _DRAW
    )
