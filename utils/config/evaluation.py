"""The section `evaluation` of a config."""

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from utils.config.options import Metrics, NotNegative, ProbabilityThreshold, TestTimeAugmentation
from utils.config.schema import Section

_Probability = Annotated[float, Field(gt=0, lt=1)]


class Hysteresis(Section):
    """Two thresholds: pixels above `low` count where they are connected to one above `high`."""

    low: _Probability
    high: _Probability

    @field_validator("high")
    @classmethod
    def _high_is_above_low(cls, high: float, info: ValidationInfo) -> float:
        if high <= info.data.get("low", 0):
            raise ValueError(f"must be greater than low = {info.data['low']}")
        return high


class EvaluationConfig(Section):
    """What a trained model is scored by, and where its probability becomes foreground.

    Dice and HD95 are always computed; `nsd_tolerance` is in pixels. `threshold` val is replaced, in a trained model's
    weights file, by the one chosen on its validation images.
    """

    metrics: Metrics = Field(default=["dice", "hd95"])
    nsd_tolerance: NotNegative = 2.0
    threshold: ProbabilityThreshold = 0.5
    hysteresis: Hysteresis | None = None
    tta: TestTimeAugmentation = "none"

    @property
    def flips(self) -> bool:
        """Whether logits are averaged over mirror images."""
        return self.tta == "flips"

    @field_validator("hysteresis")
    @classmethod
    def _replaces_the_threshold(cls, hysteresis: Hysteresis | None, info: ValidationInfo) -> Hysteresis | None:
        if hysteresis is not None and info.data.get("threshold", 0.5) != 0.5:
            raise ValueError(f"takes the place of threshold = {info.data['threshold']}; set one of them")
        return hysteresis
