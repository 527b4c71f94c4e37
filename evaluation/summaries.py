"""Scores over many samples, as results.json holds them."""

from typing import Any

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from evaluation.metrics import PAPER_METRICS
from utils.config.options import Region


class Record(BaseModel):
    """A block of results.json. Keys that this version does not know are ignored."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Measure(Record):
    """A metric over the samples: mean, sample standard deviation, and the mean's 95% bootstrap interval."""

    mean: float
    std: float | None = None
    ci95: tuple[float, float] | None = None


class Distance(Measure):
    """HD95 in pixels. `mean_without_empty` leaves out pairs with exactly one empty mask; None where none remains."""

    mean_without_empty: float | None = None


class PartialMeasure(Record):
    """A metric that is undefined for some samples: over the `n` others. None where it is defined for none."""

    mean: float | None
    std: float | None = None
    ci95: tuple[float, float] | None = None
    n: int


class AtSize(Record):
    """Scores at one image size: `n` samples, of which `n_empty` have exactly one empty mask.

    `others` holds the further metrics by name, `fov` the scores inside the field of view; both are left out of the file
    where there are none.
    """

    dice: Measure
    hd95: Distance
    n: int
    n_empty: int = 0
    others: dict[str, PartialMeasure] = {}
    fov: "AtSize | None" = None

    @model_serializer(mode="wrap")
    def _without_missing(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content = serialize(self)
        return {key: value for key, value in content.items() if value or key not in ("others", "fov")}

    def measure(self, metric: str) -> Measure | PartialMeasure | None:
        """One metric; None where it was not computed, or is defined for no sample."""
        measure = getattr(self, metric) if metric in PAPER_METRICS else self.others.get(metric)
        return measure if measure and measure.mean is not None else None

    def region(self, region: Region) -> "AtSize | None":
        """These scores, or those inside the field of view, None without one."""
        return self if region == "whole" else self.fov
