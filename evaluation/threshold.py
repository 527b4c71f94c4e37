"""Where a probability becomes foreground: a threshold, two of them, or the best one on validation images."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from utils.config.evaluation import EvaluationConfig, Hysteresis

log = logging.getLogger(__name__)

CANDIDATES = tuple(i / 100 for i in range(5, 96))


@dataclass(frozen=True)
class Threshold:
    """Foreground is above `high`, between 0 and 1. With `low`, so is what lies above `low` and is connected to it.

    Connected are pixels that share a side (scikit-image's hysteresis threshold).
    """

    high: float = 0.5
    low: float | None = None

    @classmethod
    def of(cls, settings: EvaluationConfig) -> Self:
        """The threshold of a config, or 0.5 with a warning where it is still to be chosen."""
        if settings.hysteresis:
            return cls(settings.hysteresis.high, settings.hysteresis.low)
        if settings.threshold == "val":
            log.warning("evaluation.threshold = val, but the run that chooses it has not ended: 0.5 is used")
            return cls()
        return cls(settings.threshold)

    @property
    def words(self) -> str:
        """The threshold for a reader: "0.5", or "0.3, where connected to 0.6"."""
        return f"{self.high:g}" if self.low is None else f"{self.low:g}, where connected to {self.high:g}"

    def replacing(self, settings: EvaluationConfig) -> EvaluationConfig:
        """The settings with this threshold."""
        if self.low is None:
            return settings.model_copy(update={"threshold": self.high, "hysteresis": None})
        hysteresis = Hysteresis(low=self.low, high=self.high)
        return settings.model_copy(update={"threshold": 0.5, "hysteresis": hysteresis})

    def mask(self, logits: Tensor) -> Tensor:
        """Logits (..., H, W) on the CPU -> foreground, bool of the same shape."""
        above = logits > logit(self.high)
        if self.low is None:
            return above
        from skimage.filters import apply_hysteresis_threshold

        images = logits.reshape(-1, *logits.shape[-2:]).numpy()
        masks = [apply_hysteresis_threshold(image, logit(self.low), logit(self.high)) for image in images]
        return torch.from_numpy(np.stack(masks)).reshape(logits.shape)


def logit(probability: float) -> float:
    """log(p / (1 - p)): exactly 0 for 0.5. Raises: ValueError outside 0 < p < 1."""
    if not 0 < probability < 1:
        raise ValueError(f"a threshold must lie between 0 and 1, not {probability}")
    return math.log(probability / (1 - probability))


def dice_by_threshold(logits: Tensor, mask: Tensor) -> np.ndarray:
    """Dice of one sample at each of `CANDIDATES`, from logits and mask (H, W); both empty: 1."""
    levels = np.array([logit(candidate) for candidate in CANDIDATES], np.float32)
    inside, every = np.sort(logits[mask > 0].numpy()), np.sort(logits.numpy(), axis=None)
    hits = inside.size - np.searchsorted(inside, levels, "right")
    area = every.size - np.searchsorted(every, levels, "right") + inside.size
    return np.where(area > 0, 2 * hits / np.maximum(area, 1), 1.0)


def best_threshold(curves: Sequence[np.ndarray]) -> float:
    """The candidate with the highest mean Dice over at least one sample; of equal ones, the nearest to 0.5."""
    mean = np.mean(curves, axis=0)
    return max(zip(mean, CANDIDATES, strict=True), key=lambda pair: (pair[0], -abs(pair[1] - 0.5)))[1]
