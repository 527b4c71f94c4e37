"""DIAS: intracranial arteries in digital subtraction angiography, sequences of frames with one mask each."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from datasets.converters.plan import Case, Pair, Plan, binary_mask, check_sizes, one_to_one
from datasets.converters.search import files_by, find_path
from datasets.io import read_image, read_mask
from utils.errors import UserError

DIGESTS = {"DIAS.zip": "md5:780f32df6fb2a5de5d476f385cf2e83b"}

_DRAW = {"train": 20, "test": 10}
_PARTS = {"training": "train", "validation": "val", "test": "test"}
_THRESHOLD = 100

# How frames (F, H, W, 3) become one image. Contrast agent is dark and fills the arteries one after another.
PROJECTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "min": lambda frames: frames.min(axis=0),
    "last": lambda frames: frames[-1],
    "mean": lambda frames: np.rint(frames.mean(axis=0)).astype(frames.dtype),
}


def convert(source: Path | None, *, seed: int, split: str = "paper", projection: str = "min") -> Plan:
    """Make one image a sequence: image_sS_iF.png, F in the order of the numbers, with label_sS.png.

    scribble_labels/ are strokes inside the vessels, no masks. Names begin with the folder.

    Args:
        split: `paper`: 20 train and 10 test, drawn from the 30 sequences of training/. `official`: the folders
            training, validation and test.
        projection: `min`, the darkest value a pixel has in any frame, `last`, the last frame, or `mean`.

    Raises: UserError that names what is missing or odd.
    """
    root = find_path(source, "training/labels").parents[1]
    parts = ("training",) if split == "paper" else tuple(_PARTS)
    cases = []
    for part in parts:
        cases += _cases(root / part, projection, None if split == "paper" else _PARTS[part])
    return Plan(cases, _DRAW if split == "paper" else {})


def _cases(folder: Path, projection: str, split: str | None) -> list[Case]:
    frames = files_by(folder / "images", r"image_s(\d+)_i(\d+)\.png", lambda s, i: (int(s), int(i)))
    masks = files_by(folder / "labels", r"label_s(\d+)\.png", int)
    sequences: dict[int, list[Path]] = {}
    for (sequence, _), path in frames.items():
        sequences.setdefault(sequence, []).append(path)
    one_to_one({number: paths[0] for number, paths in sequences.items()}, masks, f"{folder.name}/labels")
    return [
        Case(f"{folder.name}_s{number}", partial(_read, paths, masks[number], projection), split)
        for number, paths in sequences.items()
    ]


def _read(paths: Sequence[Path], mask: Path, projection: str) -> Pair:
    frames = [read_image(path) for path in paths]
    for path, frame in zip(paths, frames, strict=True):
        if (frame.shape, frame.dtype) != (frames[0].shape, frames[0].dtype):
            raise UserError(f"{path}: not of the size and depth of {paths[0].name}, a frame of the same sequence")
    image = PROJECTIONS[projection](np.stack(frames))
    vessels = binary_mask(read_mask(mask), mask, _THRESHOLD)
    check_sizes(image, paths[0], vessels, mask)
    return image, vessels
