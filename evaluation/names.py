"""The metrics: how each is called, how many decimals it is shown with, and which direction is better."""

from dataclasses import dataclass
from typing import cast

from utils.config.options import MetricName


@dataclass(frozen=True)
class Metric:
    """Name, decimals and direction of a metric; `unit` is what its numbers count, "" for a plain number."""

    name: str
    decimals: int = 3
    higher_is_better: bool = True
    unit: str = ""

    @property
    def heading(self) -> str:
        """Such as "Dice (higher is better)"."""
        unit = f" in {self.unit}" if self.unit else ""
        return f"{self.name}{unit} ({'higher' if self.higher_is_better else 'lower'} is better)"

    def text(self, value: float) -> str:
        """The value as it is shown, such as "0.812" or "12.30 px"."""
        return f"{value:.{self.decimals}f}" + (" px" if self.unit == "pixels" else "")


METRICS: dict[MetricName, Metric] = {
    "dice": Metric("Dice"),
    "iou": Metric("IoU"),
    "sensitivity": Metric("Sensitivity"),
    "specificity": Metric("Specificity"),
    "precision": Metric("Precision"),
    "accuracy": Metric("Accuracy"),
    "mcc": Metric("MCC"),
    "auc_roc": Metric("AUC-ROC"),
    "average_precision": Metric("Average precision"),
    "ece": Metric("ECE", higher_is_better=False),
    "cldice": Metric("clDice"),
    "hd95": Metric("HD95", 2, higher_is_better=False, unit="pixels"),
    "assd": Metric("ASSD", 2, higher_is_better=False, unit="pixels"),
    "nsd": Metric("Surface Dice"),
    "betti0_error": Metric("Betti-0 error", 1, higher_is_better=False),
    "thin_sensitivity": Metric("Sensitivity, thin"),
}


def metric_of(name: str) -> Metric:
    """The metric of that name; one that only a later version knows has its name alone."""
    return METRICS.get(cast(MetricName, name)) or Metric(name)
