"""The section `evaluation` of a config."""

from pydantic import Field

from utils.config.options import Metrics, NotNegative
from utils.config.schema import Section


class EvaluationConfig(Section):
    """What a trained model is scored by. Dice and HD95 are always computed; `nsd_tolerance` is in pixels."""

    metrics: Metrics = Field(default=["dice", "hd95"])
    nsd_tolerance: NotNegative = 2.0
