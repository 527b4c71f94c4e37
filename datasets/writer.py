"""Writing a data set: images/, masks/, data_split.csv."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.io import read_image
from datasets.split import COLUMNS, SPLITS
from utils.errors import UserError

# PNG's compression: level 3 is three times as fast as the default and 3% larger on photographs.
_COMPRESSION = 3


def write_png(path: Path, values: np.ndarray) -> None:
    """Write (H, W) or (H, W, 3) uint8, or (H, W) uint16, losslessly; three equal channels of uint16 count as one.

    Raises: UserError for 16-bit colour, which Pillow can't write.
    """
    if values.dtype == np.uint16 and values.ndim == 3:
        if (values != values[..., :1]).any():
            raise UserError(f"{path.name}: 16-bit colour can't be written as PNG here; convert it to 8 bits first")
        values = values[..., 0]
    Image.fromarray(np.ascontiguousarray(values)).save(path, format="PNG", compress_level=_COMPRESSION)


def binary_mask(values: np.ndarray, path: Path, threshold: int = 0) -> np.ndarray:
    """Return `values > threshold`, (H, W) bool. Raises: UserError if an image's mask file is not what it should be.

    With the default threshold the file must hold two values at most, 0 and another: grey edges would turn to vessel.
    """
    if threshold == 0 and (len(found := np.unique(values)) > 2 or found[0] != 0):
        shown = ", ".join(str(value) for value in found[:8])
        raise UserError(f"{path}: expected a mask of 0 and one other value, found {shown}")
    return values > threshold


def random_split(names: Sequence[str], counts: Mapping[str, int], seed: int) -> dict[str, str]:
    """Draw a split: {name: split}, `counts` images in each, from `seed` alone (not from the order of drawing).

    Raises: UserError if the counts don't add up to the names.
    """
    if sum(counts.values()) != len(names):
        raise UserError(f"{len(names)} images don't make {' + '.join(f'{n} {split}' for split, n in counts.items())}")
    order = np.random.default_rng(seed).permutation(len(names))
    labels = [split for split in SPLITS for _ in range(counts.get(split, 0))]
    drawn = dict(zip((names[i] for i in order), labels, strict=True))
    return {name: drawn[name] for name in names}


class SetWriter:
    """Collects a set in a folder; converters add images, in order, and give the split.

    Attributes: `images` and `masks`, the two folders; `notes`, what a converter wants in the summary.
    """

    def __init__(self, root: Path) -> None:
        self.images, self.masks = root / "images", root / "masks"
        self.images.mkdir(parents=True)
        self.masks.mkdir()
        self.notes: dict[str, object] = {}
        self._root = root
        self._names: list[str] = []

    @property
    def names(self) -> list[str]:
        """Names of the images added, in order."""
        return list(self._names)

    def add(self, stem: str, image: np.ndarray | Path, mask: np.ndarray) -> str:
        """Write `stem`.png twice and return that name.

        Args:
            stem: unique in the set.
            image: (H, W) or (H, W, 3), uint8 or uint16, or a file to be decoded; its bits are kept.
            mask: (H, W); bool is written as 0/255, integers as they are (below 256).

        Raises: UserError that names the image, if the sizes differ, the name is taken or the file can't be read.
        """
        source = image.name if isinstance(image, Path) else stem
        values = read_image(image) if isinstance(image, Path) else image
        if values.shape[:2] != mask.shape:
            raise UserError(f"{source}: image of {values.shape[:2]}, but mask of {mask.shape} (height, width)")
        name = self.register(stem)
        write_png(self.images / name, values)
        write_png(self.masks / name, mask.astype(np.uint8) * (255 if mask.dtype == bool else 1))
        return name

    def register(self, stem: str) -> str:
        """Note an image that something else writes into the two folders, and return its name."""
        name = f"{stem}.png"
        if name in self._names:
            raise UserError(f"{name}: two images of that name in one set")
        self._names.append(name)
        return name

    def finish(self, split: Mapping[str, str]) -> dict[str, int]:
        """Write data_split.csv from {name: split}, in the order of adding, and return the number of images a split."""
        with open(self._root / "data_split.csv", "w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(COLUMNS)
            rows.writerows((name, split[name]) for name in self._names)
        return {part: sum(split[name] == part for name in self._names) for part in SPLITS}
