"""From a decoded image and its mask to what the network sees, and back."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from utils.errors import ConfigError

# With use_random_crop the longest side is first resized to this many times img_size.
CROP_MARGIN = 1.25


def resize_shape(size: tuple[int, int], img_size: int) -> tuple[int, int]:
    """Return (h, w) for an image of `size` (H, W) whose longest side becomes `img_size`, each at least 1."""
    scale = img_size / max(size)
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def to_native(logits: Tensor, valid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Bring logits of the padded square back to the image's own size.

    Args:
        logits: (S, S) float.
        valid: (h, w) of the un-padded part, top left.
        size: (H, W) of the image file.

    Returns: (H, W) logits, bilinear.
    """
    height, width = (int(side) for side in valid)
    cropped = logits[None, None, :height, :width]  # (1, 1, h, w)
    target = (int(size[0]), int(size[1]))
    return functional.interpolate(cropped, size=target, mode="bilinear", align_corners=False)[0, 0]


class Data_Transform:
    """Intensity, resize, augmentation, normalization and padding of an image and its mask together.

    The order is: clip to [a_min, a_max] and scale to 0..1; resize the longest side to img_size (bilinear,
    antialiased; mask nearest-exact); in training crop and jitter; normalize; in training flip, rotate and scale, with 0
    (the mean colour) where nothing is known; pad right and bottom with 0. The augmentation moves the un-padded part,
    so padding is in training what it is in use: right, bottom, and 0 after normalization, as SAM's is.

    Random numbers come from torch's CPU generator, whose seed is the caller's affair.
    """

    def __init__(self, settings: Any, train: bool) -> None:
        """Take a config's `data_transforms` section; `train` switches the augmentation on."""
        self.img_size = int(settings.img_size)
        self.a_min, self.a_max = settings.a_min, settings.a_max
        self.train = train
        self.crop = train and settings.use_random_crop
        self.jitter = _jitter(settings) if train else v2.Identity()
        self.normalize = v2.Normalize(
            mean=[value / 255 for value in settings.pixel_mean], std=[value / 255 for value in settings.pixel_std]
        )
        self.move = _movements(settings) if train else v2.Identity()

    def __call__(self, image: np.ndarray, mask: np.ndarray | None = None) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Transform one decoded image.

        Args:
            image: (H, W, 3) uint8 or uint16.
            mask: (H, W) integers below 256, or None for none (an empty one comes back).

        Returns: image (3, S, S) float32, mask (S, S) uint8 with the given values, (h, w) of the un-padded part.
        """
        return self.finish(*self.load(image, mask))

    @property
    def load_size(self) -> int:
        """The longest side of what `load` returns."""
        return round(self.img_size * CROP_MARGIN) if self.crop else self.img_size

    def intensity(self, image: np.ndarray) -> np.ndarray:
        """Clip to [a_min, a_max], by default the whole range of the dtype, and scale to 0..1, float32.

        Raises: ConfigError if a_max isn't above a_min.
        """
        low = 0 if self.a_min is None else self.a_min
        high = np.iinfo(image.dtype).max if self.a_max is None else self.a_max
        if high <= low:
            raise ConfigError(f"data_transforms: a_max ({high}) must be above a_min ({low})")
        return (np.clip(image.astype(np.float32), low, high) - low) / (high - low)

    def load(self, image: np.ndarray, mask: np.ndarray | None = None) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
        """The part without chance: intensity and resize.

        Returns: image (3, h, w) in 0..1, mask (1, h, w) uint8.
        """
        scaled = self.intensity(image)
        if mask is None:
            mask = np.zeros(image.shape[:2], np.uint8)
        pair = (
            tv_tensors.Image(torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1)))),
            tv_tensors.Mask(torch.from_numpy(mask.astype(np.uint8))[None]),
        )
        return _resize(*pair, resize_shape(image.shape[:2], self.load_size))

    def finish(self, image: tv_tensors.Image, mask: tv_tensors.Mask) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """The part with chance, normalization and padding, of what `load` returned. Returns as `__call__` does."""
        if self.crop:
            image, mask = self._random_crop(image, mask)
        image, mask = self.move(self.normalize(self.jitter(image)), mask)
        height, width = image.shape[-2:]
        padding = (0, self.img_size - width, 0, self.img_size - height)  # left, right, top, bottom
        image = functional.pad(image.as_subclass(Tensor), padding)  # (3, S, S)
        mask = functional.pad(mask.as_subclass(Tensor), padding)[0]  # (S, S)
        return image, mask, (height, width)

    def _random_crop(self, image: tv_tensors.Image, mask: tv_tensors.Mask) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
        shape = tuple(min(self.img_size, side) for side in image.shape[-2:])
        return v2.RandomCrop(shape)(image, mask)


def _resize(
    image: tv_tensors.Image, mask: tv_tensors.Mask, shape: tuple[int, int]
) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    size = list(shape)
    image = v2.functional.resize(image, size, InterpolationMode.BILINEAR, antialias=True)
    return image.clamp_(0, 1), v2.functional.resize(mask, size, InterpolationMode.NEAREST_EXACT)


def _jitter(settings: Any) -> v2.Transform:
    brightness = settings.brightness if settings.use_brightness else 0
    saturation = settings.saturation if settings.use_saturation else 0
    return v2.ColorJitter(brightness=brightness, saturation=saturation) if brightness or saturation else v2.Identity()


def _movements(settings: Any) -> v2.Transform:
    moves: list[v2.Transform] = [v2.Identity()]
    if settings.use_horizontal_flip:
        moves.append(v2.RandomHorizontalFlip())
    if settings.use_vertical_flip:
        moves.append(v2.RandomVerticalFlip())
    angle = settings.rotation_angle if settings.use_rotation else 0
    scale = tuple(settings.random_scale) if settings.use_random_scale else None
    if angle or scale:
        # One resampling for both. Masks are always moved by nearest neighbour.
        moves.append(v2.RandomAffine(degrees=angle, scale=scale, interpolation=InterpolationMode.BILINEAR, fill=0))
    return v2.Compose(moves)
