"""Writes the files of a prediction."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datasets.preparation.writer import write_png
from evaluation.threshold import Threshold
from prediction.predictor import Predictor, index_map
from utils.drawing import draw_masks, label_palette, with_legend
from utils.errors import UserError
from utils.files import atomic_path

_MADE_BY = ("Software", "SALT predict")  # a text chunk of the PNGs

ProbabilityFormat = Literal["png", "npy"]


@dataclass(frozen=True)
class Outputs:
    """Writes predictions to `folder`:

    `<stem>.png`: the mask, 0/255 for a model of one label, else the label values, with the labels' colours as palette.
    `probabilities/<stem>_<label>.png`: 16 bits, probability times 65535.
    `probabilities/<stem>.npy`, instead of these: (L, H, W) float32.
    `overlay/<stem>.png`: the mask over the image, with a legend below it where there are several labels.
    """

    folder: Path
    predictor: Predictor
    probabilities: ProbabilityFormat | None = None
    overlay: bool = False
    threshold: Threshold = field(default_factory=Threshold)

    def mask_path(self, stem: Path) -> Path:
        """The path of the mask named `stem`."""
        return self.folder / f"{stem}.png"

    def check_replaceable(self, stem: Path) -> None:
        """Raises UserError if a file of this prediction exists, and no prediction wrote it.

        A .npy has no mark; it is a prediction's if there is a mask of that name.
        """
        for path in self.paths(stem):
            marked = path if path.suffix == ".png" else self.mask_path(stem)
            if os.path.lexists(path) and not _is_prediction(marked):
                raise UserError(f"{path}: exists, and no prediction wrote it; give another --output, or move it away")

    def is_complete(self, stem: Path) -> bool:
        """Whether all files of this prediction exist; each is written atomically."""
        return all(path.is_file() for path in self.paths(stem))

    def write(self, stem: Path, image: np.ndarray, logits: Tensor) -> None:
        """Writes the files of one image (H, W, 3) from the logits (L, H, W) of all labels."""
        if self.overlay:
            values = index_map(logits, range(len(logits) + 1), self.threshold)
            masks = np.stack([values == i + 1 for i in range(len(logits))])
            drawn = draw_masks(self.predictor.shown(image), masks)
            drawn = with_legend(drawn, self.predictor.labels) if len(masks) > 1 else drawn
            _write_png(self._overlay_path(stem), drawn)
        if len(logits) == 1:
            mask = self.threshold.mask(logits[0]).numpy().astype(np.uint8) * 255
        else:
            mask = index_map(logits, self.predictor.values, self.threshold)
        palette = label_palette(self.predictor.values) if len(logits) > 1 else None
        _write_png(self.mask_path(stem), mask, palette)
        if self.probabilities:  # after the mask, whose mark says that a .npy of its name is a prediction's
            self._write_probabilities(stem, torch.sigmoid(logits).numpy())

    def _write_probabilities(self, stem: Path, probabilities: np.ndarray) -> None:
        paths = self._probability_paths(stem)
        if self.probabilities == "npy":
            with atomic_path(paths[0]) as temporary:
                np.save(temporary, probabilities)
            return
        for path, values in zip(paths, probabilities, strict=True):
            _write_png(path, np.rint(values * 65535).astype(np.uint16))

    def paths(self, stem: Path) -> list[Path]:
        """All files of this prediction."""
        paths = [self.mask_path(stem), *self._probability_paths(stem)]
        return [*paths, self._overlay_path(stem)] if self.overlay else paths

    def _probability_paths(self, stem: Path) -> list[Path]:
        folder = self.folder / "probabilities"
        if self.probabilities == "npy":
            return [folder / f"{stem}.npy"]
        if self.probabilities is None:
            return []
        return [folder / f"{stem}_{label.replace('/', '_')}.png" for label in self.predictor.labels]

    def _overlay_path(self, stem: Path) -> Path:
        return self.folder / "overlay" / f"{stem}.png"


def _write_png(path: Path, values: np.ndarray, palette: bytes | None = None) -> None:
    with atomic_path(path) as temporary:
        write_png(temporary, values, _MADE_BY, palette)


def _is_prediction(path: Path) -> bool:
    """Whether `predict` wrote the file, which it marks."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return image.info.get(_MADE_BY[0]) == _MADE_BY[1]
    except (OSError, ValueError, SyntaxError):
        return False
