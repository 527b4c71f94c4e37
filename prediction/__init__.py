"""Applies a trained model: takes images of any size, returns masks and probabilities of that size."""

from prediction.predictor import Predictor

__all__ = ["Predictor"]
