"""The traditional networks of the paper's Table 1, and two newer ones, behind one build function."""

from networks.baselines.base import BaselineError, PaddedNetwork, Size
from networks.baselines.build import BASELINES, Baseline, build
from networks.baselines.encoder_weights import EncoderReport, load_encoder_weights

__all__ = [
    "BASELINES",
    "Baseline",
    "BaselineError",
    "EncoderReport",
    "PaddedNetwork",
    "Size",
    "build",
    "load_encoder_weights",
]
