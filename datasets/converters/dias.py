"""DIAS: intracranial arteries in digital subtraction angiography, one mask for each sequence of frames."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from datasets.converters.plan import Case, Pair, Plan, binary_mask, check_pairs
from datasets.converters.search import find_in_source, match_files
from datasets.io import read_image, read_mask
from datasets.masks import check_size
from utils.errors import UserError

DIGESTS = {"DIAS.zip": "md5:780f32df6fb2a5de5d476f385cf2e83b"}

_SPLIT_SIZES = {"train": 20, "test": 10}
_PARTS = {"training": "train", "validation": "val", "test": "test"}
_THRESHOLD = 100

# Projections of frames (F, H, W, 3) to one image. The contrast agent is dark and fills one artery after another.
PROJECTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "min": lambda frames: frames.min(axis=0),
    "last": lambda frames: frames[-1],
    "mean": lambda frames: np.rint(frames.mean(axis=0)).astype(frames.dtype),
}


def convert(source: Path | None, *, seed: int, split: str = "paper", projection: str = "min") -> Plan:
    """Project the frames image_sS_iF.png of each sequence S to one image, and pair it with label_sS.png.

    The folder scribble_labels/ is ignored: it holds strokes inside the vessels, not masks. File names begin with the
    folder (training_s1.png).

    Args:
        split: `paper`: 20 train and 10 test, drawn from the 30 sequences of training/, and validation/, where it is
            there, as val. `official`: the folders training, validation and test.
        projection: `min`, the darkest value of each pixel over all frames; `last`, the last frame; `mean`.

    Raises: UserError that names the missing or invalid file.
    """
    root = find_in_source(source, "training/labels").parents[1]
    if split == "official":
        return Plan([case for part in _PARTS for case in _cases(root / part, projection, _PARTS[part])])
    cases = _cases(root / "training", projection, None)
    if (root / "validation").is_dir():
        cases += _cases(root / "validation", projection, "val")
    return Plan(cases, _SPLIT_SIZES)


def _cases(folder: Path, projection: str, split: str | None) -> list[Case]:
    frames = match_files(folder / "images", r"image_s(\d+)_i(\d+)\.png", lambda s, i: (int(s), int(i)))
    masks = match_files(folder / "labels", r"label_s(\d+)\.png", int)
    sequences: dict[int, list[Path]] = {}
    for (sequence, _), path in frames.items():
        sequences.setdefault(sequence, []).append(path)
    check_pairs({number: paths[0] for number, paths in sequences.items()}, masks, f"{folder.name}/labels")
    return [
        Case(f"{folder.name}_s{number}", partial(_read, paths, masks[number], projection), split)
        for number, paths in sequences.items()
    ]


def _read(paths: Sequence[Path], mask: Path, projection: str) -> Pair:
    frames = [read_image(path) for path in paths]
    for path, frame in zip(paths, frames, strict=True):
        if (frame.shape, frame.dtype) != (frames[0].shape, frames[0].dtype):
            raise UserError(f"{path}: size or bit depth differs from {paths[0].name}, a frame of the same sequence")
    image = PROJECTIONS[projection](np.stack(frames))
    vessels = binary_mask(read_mask(mask), mask, _THRESHOLD)
    check_size(vessels, mask, image.shape, paths[0])
    return image, vessels
