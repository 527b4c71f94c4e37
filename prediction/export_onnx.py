"""Exports a trained model to ONNX: takes an image, returns the probabilities of every label."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prediction.predictor import Predictor
from utils.errors import UserError
from utils.extras import extra
from utils.files import atomic_path

OPSET = 17
TOLERANCE = 1e-3
_MAX_BYTES = 2**31 - 1  # of a protobuf message


class ImageToProbabilities(nn.Module):
    """Normalization, the model and the sigmoid, with a fixed prompt for each label."""

    mean: Tensor
    std: Tensor

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.model = predictor.model
        self.labels = predictor.labels
        self.register_buffer("mean", torch.tensor(predictor.transform.mean)[:, None, None] * 255)
        self.register_buffer("std", torch.tensor(predictor.transform.std)[:, None, None] * 255)

    def forward(self, image: Tensor) -> Tensor:
        """(1, 3, S, S) float in 0..255, padding the mean colour -> (1, L, S, S) probabilities."""
        embedded = self.model.embed((image - self.mean) / self.std)
        return torch.sigmoid(torch.stack([self.model.decode(embedded, [label]) for label in self.labels], dim=1))


def export_onnx(predictor: Predictor, checkpoint: Path, output: Path) -> str:
    """Writes the merged model with its labels' prompts baked in; checks it with onnxruntime if that is installed.

    Input `image` (1, 3, S, S) float32: RGB, the checkpoint's a_min..a_max stretched to 0..255, longest side resized
    to S or, where `scale` is native, a window of at most S x S pixels as it is; the rest, right and below, is filled
    with the metadata's `pixel_mean`. Output `probabilities` (1, L, S, S) float32. The metadata holds, as JSON:
    `labels`, `pixel_mean`, `img_size`, `scale`, `a_min`, `a_max`, `threshold` and, with hysteresis, `low`. ONNX opset
    17.

    Args:
        predictor: as `model.load_model` returns it.
        checkpoint: the weights file that it comes from, for errors.
        output: ends in .onnx.

    Returns:
        One line: the file, and what the check found.

    Raises:
        UserError: the package onnx is missing; the model has no text prompt, or is above 2 GB; the file does not give
            PyTorch's probabilities to 1e-3 (it is not written then).
    """
    onnx = extra("onnx", "--format onnx")
    if predictor.model.text_encoder is None and predictor.model.prompt != "none":
        raise UserError(
            f"{checkpoint}: is prompted by {predictor.model.prompt}; only labels can be baked into an ONNX file"
        )
    if sum(p.numel() * p.element_size() for p in predictor.model.parameters()) > _MAX_BYTES:
        raise UserError(f"{checkpoint}: has more than the 2 GB of weights that one ONNX file holds")
    module = ImageToProbabilities(predictor).eval()
    with atomic_path(output) as temporary:
        _trace(module, predictor.model.img_size, temporary)
        content = onnx.load(temporary)
        onnx.helper.set_model_props(content, {key: json.dumps(value) for key, value in _notes(predictor).items()})
        onnx.save(content, temporary)
        difference = _largest_difference(module, predictor.model.img_size, temporary)
        if difference is not None and not difference <= TOLERANCE:
            raise UserError(f"{output}: not written, it differs from PyTorch's probabilities by {difference:.1e}")
    if difference is None:
        return f"written: {output}, not checked (pip install onnxruntime, and the command checks it)"
    return f"written: {output}, equal to PyTorch's probabilities to {difference:.1e}"


def _notes(predictor: Predictor) -> dict[str, Any]:
    transform, threshold = predictor.transform, predictor.threshold
    return {
        "labels": predictor.labels,
        "pixel_mean": [round(value * 255, 4) for value in transform.mean],
        "img_size": predictor.model.img_size,
        "scale": "native" if transform.native else "fit",
        "a_min": transform.a_min,
        "a_max": transform.a_max,
        "threshold": threshold.high,
        **({} if threshold.low is None else {"low": threshold.low}),
    }


def _trace(module: ImageToProbabilities, img_size: int, path: Path) -> None:
    # The tracing exporter: every size is fixed, and the newer one takes four times as long for the same graph.
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # about values traced as constants, which they are here
        torch.onnx.export(
            module,
            (_sample(img_size, 0),),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["probabilities"],
        )


def _largest_difference(module: nn.Module, img_size: int, path: Path) -> float | None:
    """Between PyTorch and onnxruntime on images that were not traced; None without onnxruntime."""
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    largest = 0.0
    for seed in (1, 2):
        image = _sample(img_size, seed)
        with torch.no_grad():
            expected = module(image).numpy()
        found = session.run(None, {"image": image.numpy()})[0]
        largest = float(np.maximum(largest, np.abs(found - expected).max()))  # NaN where one is
    return largest


def _sample(img_size: int, seed: int) -> Tensor:
    """(1, 3, S, S) noise of two grains, 0..255."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 8, 8, generator=generator)
    smooth = nn.functional.interpolate(coarse, size=(img_size, img_size), mode="bilinear")
    return 255 * (0.8 * smooth + 0.2 * torch.rand(1, 3, img_size, img_size, generator=generator))
