"""Prediction: images of any size in, masks of that size out."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from data_transforms.data_transforms import Data_Transform, to_native
from datasets.io import IMAGE_SUFFIXES, read_image
from datasets.writer import write_png
from model import load_model
from utils.errors import ConfigError, UserError
from utils.files import atomic_path

log = logging.getLogger(__name__)


@dataclass
class Predictor:
    """A trained model with its own preprocessing.

    `labels` are the foreground label names, `values` what background and labels are in a mask (`data.label_list`).
    """

    model: nn.Module
    transform: Data_Transform
    labels: list[str]
    values: list[int]
    device: torch.device

    @classmethod
    def from_checkpoint(cls, path: Path, device: torch.device, pretrained_path: Path | None = None) -> "Predictor":
        """The predictor of a weights file. Raises: as `model.load_model`."""
        model, config = load_model(path, pretrained_path)
        data = config.require_data()
        transform = Data_Transform(config.data_transforms, train=False)
        return cls(model.to(device), transform, data.label_names[1:], data.label_list, device)

    def logits(self, image: np.ndarray) -> Tensor:
        """Logits of every label at the image's own size: (H, W, 3) uint8 or uint16 -> (L, H, W) float32 on the CPU."""
        pixels, _, valid = self.transform(image)
        with torch.inference_mode():
            embedded = self.model.embed(pixels[None].to(self.device))
            squares = [self.model.decode(embedded, [label])[0].float().cpu() for label in self.labels]
        return torch.stack([to_native(square, valid, image.shape[:2]) for square in squares])

    def mask(self, image: np.ndarray) -> np.ndarray:
        """The predicted mask (H, W) uint8: 0/255 for one label, else the value of the label with the largest logit."""
        logits = self.logits(image)
        if len(self.labels) == 1:
            return (logits[0] > 0).numpy().astype(np.uint8) * 255
        return index_map(logits, self.values)


def index_map(logits: Tensor, values: Sequence[int]) -> np.ndarray:
    """(L, H, W) logits of L labels -> (H, W) uint8: the value of the largest logit, or, where none is above 0, the
    background's, which is the first of the L + 1 values."""
    largest, which = logits.max(dim=0)
    positions = torch.where(largest > 0, which + 1, 0)
    return torch.tensor(values, dtype=torch.uint8)[positions].numpy()


def predict_folder(predictor: Predictor, images: Path, output: Path) -> list[UserError]:
    """Writes a PNG mask to `output` for each image: of a folder with its subfolders, or of one file.

    A mask is named as its image, and lies in the same subfolder. An image that cannot be read is passed over.

    Returns:
        What went wrong, one error an image.

    Raises:
        UserError: no images; two images whose masks would have one name.
    """
    targets = _targets(images, output)
    problems: list[UserError] = []
    for path, target in tqdm(targets.items(), desc="predict", unit="image", disable=None):
        try:
            mask = _mask(predictor, path)
        except UserError as error:
            log.warning("%s", error)
            problems.append(error)
            continue
        with atomic_path(target) as temporary:
            write_png(temporary, mask)
    return problems


def _mask(predictor: Predictor, path: Path) -> np.ndarray:
    image = read_image(path)
    try:
        return predictor.mask(image)
    except ConfigError as error:  # of an intensity window that does not fit this image
        raise ConfigError(f"{path}: {error}") from None


def _targets(images: Path, output: Path) -> dict[Path, Path]:
    if images.is_dir():
        found = sorted(path for path in images.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        names = [path.relative_to(images) for path in found]
    else:
        found, names = [images], [Path(images.name)]
    if not found:
        raise UserError(f"{images}: holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
    sources: dict[Path, Path] = {}
    for path, name in zip(found, names, strict=True):
        target = output / name.with_suffix(".png")
        if target in sources:
            raise UserError(f"{path} and {sources[target]}: both masks would be {target}; rename one")
        sources[target] = path
    return {source: target for target, source in sources.items()}
