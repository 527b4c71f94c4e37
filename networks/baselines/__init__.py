"""The traditional networks of the paper's Table 1, and two newer ones, behind one build function."""

from networks.baselines.base import PaddedNetwork
from networks.baselines.build import BASELINES, Baseline, build
from networks.baselines.encoder_weights import load_encoder_weights

__all__ = ["BASELINES", "Baseline", "PaddedNetwork", "build", "load_encoder_weights"]
