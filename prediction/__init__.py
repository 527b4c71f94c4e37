"""Using a trained model: images of any size in, masks and probabilities of that size out."""

from prediction.predictor import Predictor, index_map

__all__ = ["Predictor", "index_map"]
