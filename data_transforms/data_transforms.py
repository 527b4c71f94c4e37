"""Transforms a decoded image and its mask to the network's input, and logits back to the image's size."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from data_transforms.intensity import check_window, scale_intensity

# With use_random_crop the longest side is first resized to this many times img_size.
CROP_MARGIN = 1.25
NEAREST = InterpolationMode.NEAREST_EXACT
_BLUR_SIDE = 7  # of the Gaussian's kernel in pixels
_ELASTIC_SIGMA = 5  # pixels over which displacements are smoothed


def resize_shape(size: tuple[int, int], img_size: int) -> tuple[int, int]:
    """Return (h, w) for an image of `size` (H, W) whose longest side becomes `img_size`, each at least 1."""
    scale = img_size / max(size)
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def to_native(logits: Tensor, valid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Resize logits of the padded square to the image's own size.

    Args:
        logits: (S, S) float.
        valid: (h, w) of the un-padded part at the top left.
        size: (H, W) of the image file.

    Returns: (H, W) logits, bilinear.
    """
    height, width = (int(side) for side in valid)
    cropped = logits[None, None, :height, :width]  # (1, 1, h, w)
    target = (int(size[0]), int(size[1]))
    return functional.interpolate(cropped, size=target, mode="bilinear", align_corners=False)[0, 0]


def resize_mask(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resize a mask (H, W) to (h, w) uint8, nearest-exact."""
    small = torch.from_numpy(mask.astype(np.uint8))[None]
    return v2.functional.resize(small, list(shape), NEAREST)[0].numpy()


class Data_Transform:
    """Intensity, resize, augmentation, normalization and padding of an image and its mask together.

    Order: clip to [a_min, a_max] and scale to 0..1; resize the longest side to img_size (image bilinear, antialiased;
    mask nearest-exact), unless the scale is native; in training crop and change the intensities; normalize; in
    training flip, rotate, scale and deform, with 0 (the mean colour) outside the image; pad right and bottom with 0.
    Padding comes last, so in training too it is right, bottom, and 0 after normalization, as SAM's is. At native scale
    a larger image stays larger, and the windows of `prediction.tiles` show it to the model.

    The augmentation is torchvision's: it draws from torch's global CPU generator, which the caller seeds.
    """

    def __init__(self, settings: Any, train: bool) -> None:
        """Take a config's `data_transforms` section; `train` switches the augmentation on."""
        self.img_size = int(settings.img_size)
        self.a_min, self.a_max = settings.a_min, settings.a_max
        self.native = settings.scale == "native"
        self.crop = train and (settings.use_random_crop or self.native)
        self.mean, self.std = ([value / 255 for value in part] for part in (settings.pixel_mean, settings.pixel_std))
        normalize = v2.Normalize(self.mean, self.std, inplace=True)
        self.steps = v2.Compose(_augmentation(settings, normalize) if train else [normalize])

    def __call__(self, image: np.ndarray, mask: np.ndarray | None = None) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Transform one decoded image.

        Args:
            image: (H, W, 3) uint8 or uint16.
            mask: (H, W) integers below 256, or None for an empty one.

        Returns: image (3, S, S) float32, mask (S, S) uint8 with the given values, (h, w) of the un-padded part. S is
            img_size; outside training and at native scale both sides are the image's where it is larger.
        """
        self.check(image)
        return self.finish(*self.load(image, mask))

    def check(self, image: np.ndarray) -> None:
        """Raises ConfigError if [a_min, a_max] does not suit this whole image: see `check_window`."""
        check_window(image, self.a_min, self.a_max)

    def load_shape(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (h, w) of what `load` returns for an image of `size` (H, W)."""
        if self.native:
            return size
        return resize_shape(size, round(self.img_size * CROP_MARGIN) if self.crop else self.img_size)

    def intensity(self, image: np.ndarray) -> np.ndarray:
        """Clip to [a_min, a_max] and scale to 0..1, float32. Raises: as `intensity_window` does."""
        return scale_intensity(image, self.a_min, self.a_max)

    def load(self, image: np.ndarray, mask: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The deterministic part: intensity and resize.

        Returns: image (3, h, w) float32 in 0..1, mask (h, w) uint8.
        """
        scaled = torch.from_numpy(self.intensity(np.ascontiguousarray(image.transpose(2, 0, 1))))  # (3, H, W)
        shape = self.load_shape(image.shape[:2])
        resized = v2.functional.resize(scaled, list(shape), InterpolationMode.BILINEAR, antialias=True)
        if mask is None:
            return resized.clamp_(0, 1).numpy(), np.zeros(shape, np.uint8)
        return resized.clamp_(0, 1).numpy(), resize_mask(mask, shape)

    def finish(self, image: np.ndarray, mask: np.ndarray) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """The random part, normalization and padding of what `load` returned. Does not write to its arguments.

        Args:
            image: (3, h, w), or (1, h, w) for three equal channels: float32 in 0..1, or integers whose largest is 1.
            mask: (h, w) uint8.

        Returns: as `__call__` does.
        """
        pair = tv_tensors.Image(_as_float(image)), tv_tensors.Mask(mask.copy()[None])
        if self.crop:
            pair = v2.RandomCrop([min(self.img_size, side) for side in mask.shape])(*pair)
        pixels, moved_mask = self.steps(*pair)  # (3, h, w), (1, h, w)
        height, width = moved_mask.shape[-2:]
        padding = (0, max(0, self.img_size - width), 0, max(0, self.img_size - height))  # left, right, top, bottom
        return functional.pad(pixels, padding), functional.pad(moved_mask[0], padding), (height, width)


def _augmentation(settings: Any, normalize: v2.Transform) -> list[v2.Transform]:
    """Return the steps of training after the crop: intensities, `normalize`, flips, rotation and scale, deformation."""
    brightness = settings.brightness if settings.use_brightness else 0
    contrast = settings.contrast if settings.use_contrast else 0
    saturation = settings.saturation if settings.use_saturation else 0
    angle = settings.rotation_angle if settings.use_rotation else 0
    scale = settings.random_scale if settings.use_random_scale else None
    steps: list[v2.Transform] = []
    if brightness or contrast or saturation:
        steps.append(v2.ColorJitter(brightness=brightness, contrast=contrast, saturation=saturation))
    if settings.use_gamma:
        steps.append(_Gamma(settings.gamma))
    if settings.use_blur:
        steps.append(v2.RandomApply([_Blur(settings.blur)]))
    steps.append(normalize)
    if settings.use_horizontal_flip:
        steps.append(v2.RandomHorizontalFlip())
    if settings.use_vertical_flip:
        steps.append(v2.RandomVerticalFlip())
    if angle or scale:
        steps.append(v2.RandomAffine(angle, scale=scale, interpolation=InterpolationMode.BILINEAR, fill=0))
    if settings.use_elastic:
        steps.append(v2.RandomApply([_Elastic(settings.elastic)]))
    return steps


class _Gamma(v2.Transform):
    """Raises the intensities of an image in 0..1 to an exponent drawn evenly, by its logarithm, from [low, high]."""

    def __init__(self, bounds: Sequence[float]) -> None:
        super().__init__()
        self.low, self.high = bounds

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"gamma": self.low * (self.high / self.low) ** float(torch.rand(()))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return v2.functional.adjust_gamma(inpt, params["gamma"]) if isinstance(inpt, tv_tensors.Image) else inpt


class _Elastic(v2.ElasticTransform):
    """torchvision's deformation; an image too small for its smoothing stays as it is."""

    def __init__(self, alpha: float) -> None:
        super().__init__(alpha, _ELASTIC_SIGMA, fill=0)

    def forward(self, *inputs: Any) -> Any:
        return super().forward(*inputs) if min(inputs[0].shape[-2:]) > 4 * _ELASTIC_SIGMA else inputs


class _Blur(v2.GaussianBlur):
    """torchvision's blur, with a smaller kernel where the image is narrower than half of it."""

    def __init__(self, sigma: Sequence[float]) -> None:
        super().__init__(_BLUR_SIDE, sigma)

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if not isinstance(inpt, tv_tensors.Image):
            return inpt
        return v2.functional.gaussian_blur(inpt, min(_BLUR_SIDE, 2 * min(inpt.shape[-2:]) - 1), **params)


def _as_float(image: np.ndarray) -> Tensor:
    """A copy (3, h, w) float32 in 0..1."""
    pixels = np.array(np.broadcast_to(image, (3, *image.shape[1:])), np.float32, order="C")
    if image.dtype != np.float32:
        pixels /= np.float32(np.iinfo(image.dtype).max)
    return torch.from_numpy(pixels)
