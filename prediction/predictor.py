"""Predicts masks with a trained model: takes numpy images, returns masks of the same size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from data_transforms.data_transforms import Data_Transform, to_native
from datasets.cache import compact
from evaluation.threshold import Threshold
from networks.base import SegmentationModel, check_logits
from networks.labels import label_indices
from networks.prompted import PromptedModel
from prediction.inputs import ImageInput, as_array
from prediction.interaction import Interaction, Prompt
from prediction.tiles import TILE_OVERLAP, Window, slide
from utils.config.evaluation import EvaluationConfig
from utils.errors import UserError

DEFAULT_THRESHOLD = Threshold()
_ROWS = 256
_NOT_SHOWN = -100.0  # the logits of a label that no prompt shows
# The axes of (H, W) along which each mirror image is flipped.
_MIRROR_AXES = ((1,), (0,), (0, 1))


@dataclass(frozen=True, repr=False)
class Predictor:
    """A trained model with its preprocessing; `model.load_model` makes it.

    Images are files, Pillow images, numpy arrays or tensors (see `prediction.inputs.as_array`). They are prepared as in
    the checkpoint's training. Every method takes two options:

    tile: windows of the model's image size slide over the image at its own resolution, and their logits are blended.
        For images far larger than the model's: keeps details, but shows them larger than in training, where whole
        images were resized. An image that is not larger is predicted as a whole. A model trained at native scale
        (`data_transforms.scale`) always predicts by windows.
    flips: averages the logits of the image and its three mirror images, which takes four times as long. None: as the
        checkpoint's `evaluation.tta` says.

    A SAM or SAM2 can also be shown clicks or boxes, of a whole image, in place of its own prompt: see `Prompt`.

    Attributes:
        model: its adapters merged, in evaluation mode.
        labels: the foreground label names.
        values: the pixel values of background and labels in a mask (`data.label_list`), below 256.
        tile_overlap: the smallest share of a window that overlaps the next.
        evaluation: the checkpoint's threshold and metrics.
    """

    model: SegmentationModel
    transform: Data_Transform
    labels: list[str]
    values: list[int]
    device: torch.device
    tile_overlap: float = TILE_OVERLAP
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        if self.model.prompt == "box_oracle":
            raise UserError(
                "the model is prompted by the box around the true mask (box_oracle), which a new image lacks"
            )

    def __repr__(self) -> str:
        kind, size = type(self.model).__name__, self.model.img_size
        weights = sum(parameter.numel() for parameter in self.model.parameters())
        return (
            f"{type(self).__name__}: {kind}, {weights:,} weights, on {self.device}\n"
            f"labels {', '.join(self.labels)}; images of {size} x {size} pixels; threshold {self.threshold.words}"
        )

    def predict(
        self,
        image: ImageInput,
        label: str,
        threshold: float | None = None,
        *,
        tile: bool = False,
        flips: bool | None = None,
        prompt: Prompt | None = None,
    ) -> np.ndarray:
        """The mask of one label: (H, W) bool, where the probability is above `threshold` (between 0 and 1).

        None takes the checkpoint's own threshold, 0.5 unless its config says otherwise.

        Raises:
            UserError: a label that the model does not know; a prompt that it does not take; a file that cannot be read;
                NonFiniteError: the model's output is not finite.
            ValueError: an image of another shape or type.
        """
        prompts = None if prompt is None else {label: prompt}
        found = self.logits(image, [label], tile=tile, flips=flips, prompts=prompts)[0]
        return self._threshold(threshold).mask(found).numpy()

    def predict_all(
        self, image: ImageInput, threshold: float | None = None, *, tile: bool = False, flips: bool | None = None
    ) -> np.ndarray:
        """The mask of all labels: (H, W) uint8, at each pixel the value of the likeliest label, or the background's.

        Raises: as `predict`.
        """
        return index_map(self.logits(image, tile=tile, flips=flips), self.values, self._threshold(threshold))

    def probabilities(
        self, image: ImageInput, label: str, *, tile: bool = False, flips: bool | None = None
    ) -> np.ndarray:
        """The probability of one label: (H, W) float32 in 0..1. Raises: as `predict`."""
        return torch.sigmoid(self.logits(image, [label], tile=tile, flips=flips)[0]).numpy()

    def logits(
        self,
        image: ImageInput,
        labels: Sequence[str] | None = None,
        *,
        tile: bool = False,
        flips: bool | None = None,
        prompts: Mapping[str, Prompt] | None = None,
    ) -> Tensor:
        """The logits of some labels, by default all: (L, H, W) float32 on the CPU. Raises: as `predict`.

        prompts: what is shown of each label; a label that is not among them has no pixel.
        """
        return self.array_logits(as_array(image, self.transform), labels, tile=tile, flips=flips, prompts=prompts)

    @torch.no_grad()
    def array_logits(
        self,
        image: np.ndarray,
        labels: Sequence[str] | None = None,
        *,
        tile: bool = False,
        flips: bool | None = None,
        prompts: Mapping[str, Prompt] | None = None,
    ) -> Tensor:
        """As `logits`, of an array that `as_array` gave: its floats are in units of the checkpoint's a_min..a_max."""
        labels = self.labels if labels is None else labels
        label_indices([*labels, *(prompts or ())], self.labels)  # raises for an unknown one
        if prompts is not None:
            if tile or flips:
                raise UserError("clicks and boxes are for whole images: leave out --tile and --tta")
            shown = self.interaction(image)
            empty = torch.full(shown.size, _NOT_SHOWN)
            return torch.stack([shown.logits(prompts[label]) if label in prompts else empty for label in labels])
        if self.model.prompt in ("box", "points"):
            raise UserError(f"the model is prompted by {self.model.prompt}: it needs clicks or boxes for this image")
        image = as_rgb(image)
        self.transform.check(image)
        tile = (tile or self.transform.native) and max(image.shape[:2]) > self.model.img_size
        predict = self._tiled if tile else self._whole
        total = predict(image, labels)
        mirrored = _MIRROR_AXES if (self.evaluation.flips if flips is None else flips) else ()
        for axes in mirrored:
            total += predict(np.flip(image, axes), labels).flip([axis + 1 for axis in axes])
        return total.div_(1 + len(mirrored))

    @torch.no_grad()
    def interaction(self, image: np.ndarray) -> Interaction:
        """An image to click on. Raises: UserError for a model without such prompts; ValueError as `predict`."""
        if not isinstance(self.model, PromptedModel):
            raise UserError("the model takes neither clicks nor boxes: it is no SAM")
        if self.transform.native:
            raise UserError("the model sees windows (data_transforms.scale: native), which take no clicks and no boxes")
        image = as_rgb(image)
        self.transform.check(image)
        pixels, valid = self._prepared(image)
        embedded = self.model.embed(pixels[None].to(self.device))
        return Interaction(self.model, embedded, valid, image.shape[:2], self.device)

    def shown(self, image: np.ndarray) -> np.ndarray:
        """The image as the model sees it, at its own size: (H, W, 3) uint8, a_min..a_max stretched to 0..255."""
        image = as_rgb(image)
        self.transform.check(image)
        drawn = np.empty(image.shape, np.uint8)
        for top in range(0, len(image), _ROWS):  # in strips: a large image would take gigabytes in float32
            drawn[top : top + _ROWS] = np.rint(self.transform.intensity(image[top : top + _ROWS]) * 255)
        return drawn

    @property
    def sees_windows(self) -> bool:
        """Whether a large image is shown to the model in windows without being asked for."""
        return self.transform.native

    @property
    def threshold(self) -> Threshold:
        """The checkpoint's own threshold."""
        return Threshold.of(self.evaluation)

    def _threshold(self, value: float | None) -> Threshold:
        return self.threshold if value is None else Threshold(value)

    def _whole(self, image: np.ndarray, labels: Sequence[str]) -> Tensor:
        pixels, valid = self._prepared(image)
        squares = self._squares(pixels[None], [valid], labels)[0]
        return torch.stack([to_native(square, valid, image.shape[:2]) for square in squares])

    def _tiled(self, image: np.ndarray, labels: Sequence[str]) -> Tensor:
        def pixels(window: Window) -> Tensor:
            return self._prepared(image[window.top : window.bottom, window.left : window.right])[0]

        def predict(squares: Tensor, group: Sequence[Window]) -> Tensor:
            return self._squares(squares, [(w.bottom - w.top, w.right - w.left) for w in group], labels)

        return slide(image.shape[:2], self.model.img_size, pixels, predict, self.tile_overlap)

    def _prepared(self, image: np.ndarray) -> tuple[Tensor, tuple[int, int]]:
        """(H, W, 3) -> (3, S, S) normalized and padded, and (h, w) of the part without padding."""
        resized, mask = self.transform.load(image)
        pixels, _, valid = self.transform.finish(compact(resized), mask)  # as datasets store it, for equal scores
        return pixels, valid

    def _squares(self, pixels: Tensor, valid: Sequence[tuple[int, int]], labels: Sequence[str]) -> Tensor:
        """(B, 3, S, S) -> logits (B, L, S, S) on the CPU."""
        boxes = None
        if self.model.prompt == "box_full":
            corners = [[0, 0, width - 1, height - 1] for height, width in valid]
            boxes = torch.tensor(corners, dtype=torch.float32, device=self.device)
        embedded = self.model.embed(pixels.to(self.device))
        decoded = [self.model.decode(embedded, [label] * len(pixels), boxes).float().cpu() for label in labels]
        return check_logits(torch.stack(decoded, dim=1))


def as_rgb(image: np.ndarray) -> np.ndarray:
    """(H, W), (H, W, 1), (H, W, 3) or (H, W, 4) -> (H, W, 3): repeats grey, drops alpha.

    Raises:
        ValueError: another shape, no pixels, or a type other than uint8, uint16 and float32 (the latter in units of the
            checkpoint's a_min..a_max).
    """
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.ndim not in (2, 3) or channels not in (1, 3, 4) or image.size == 0:
        raise ValueError(f"expected an image (H, W), (H, W, 3) or (H, W, 4), got {image.shape}")
    if image.dtype not in (np.uint8, np.uint16, np.float32):
        raise ValueError(f"expected an image of uint8, uint16 or float32, got {image.dtype}")
    image = image[..., None] if image.ndim == 2 else image
    colour = image[..., :3] if channels >= 3 else image
    return np.broadcast_to(colour, (*image.shape[:2], 3))


def index_map(logits: Tensor, values: Sequence[int], threshold: Threshold = DEFAULT_THRESHOLD) -> np.ndarray:
    """(L, H, W) logits of L labels -> (H, W) uint8: the value of the largest logit among the labels whose mask has the
    pixel, or, where none has, the background's, which is the first of the L + 1 values."""
    masks = threshold.mask(logits)
    which = logits.masked_fill(~masks, -torch.inf).argmax(dim=0)
    positions = torch.where(masks.any(dim=0), which + 1, 0)
    return torch.tensor(values, dtype=torch.uint8)[positions].numpy()
