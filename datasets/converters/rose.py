"""ROSE: retinal vessels in OCT angiography, several projections of two devices."""

from pathlib import Path

from datasets.converters.plan import Case, Plan, check_pairs, pair_reader
from datasets.converters.search import find_in_source, images_by_stem
from utils.errors import ConfigError

# Folder of each subset, and the folder of its images.
SUBSETS = {
    "SVC": ("ROSE-1/SVC", "img"),
    "DVC": ("ROSE-1/DVC", "img"),
    "SVC_DVC": ("ROSE-1/SVC_DVC", "img"),
    "ROSE-2": ("ROSE-2", "original"),
}

_SPLIT_SIZES = {"train": 22, "test": 8}
_THRESHOLD = 128


def convert(source: Path | None, *, seed: int, subset: str = "SVC", split: str | None = None) -> Plan:
    """Pair the images with gt/ by stem: suffixes may differ (.png and .tif). File names begin with train or test.

    Args:
        subset: SVC, DVC or SVC_DVC of ROSE-1 (30 train and 9 test images of 304 x 304), or ROSE-2 (90 and 22). The
            paper does not say which it used; SVC's train folder has as many images as the paper.
        split: `paper`, the default of ROSE-1: 22 train and 8 test, drawn from the train folder. `official`, the
            default of ROSE-2 and its only split: the train and test folders.

    Raises: UserError that names what is missing; ConfigError for the paper's split of ROSE-2.
    """
    split = split or ("official" if subset == "ROSE-2" else "paper")
    if (subset, split) == ("ROSE-2", "paper"):
        raise ConfigError("--split paper: ROSE-2 has no such split (22 and 8 images); leave it out")
    folder, images = SUBSETS[subset]
    root = _subset_folder(source, folder)
    cases = _cases(root, images, "train", None if split == "paper" else "train")
    if split == "official":
        cases += _cases(root, images, "test", "test")
    return Plan(cases, _SPLIT_SIZES if split == "paper" else {})


def _subset_folder(source: Path | None, folder: str) -> Path:
    """Return the folder of train/ and test/. The source may be ROSE, hold ROSE or be a folder in it."""
    return find_in_source(source, f"{folder}/train", f"{folder.removeprefix('ROSE-1/')}/train").parent


def _cases(root: Path, images_folder: str, part: str, split: str | None) -> list[Case]:
    images, masks = images_by_stem(root / part / images_folder), images_by_stem(root / part / "gt")
    check_pairs(images, masks, f"{part}/gt")
    return [
        Case(f"{part}_{stem}", pair_reader(image, masks[stem], _THRESHOLD), split) for stem, image in images.items()
    ]
