"""Random crop, flips, rotation, scale and colour of an image and its mask: torchvision v2's draws and results, faster.

The numbers are drawn by torchvision's own transforms, in the order in which they would be used. What follows gives the
bits that they give, with less work: crop and flips are views, and image and mask are resampled on one grid.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2


@dataclass(frozen=True)
class Draw:
    """What chance chose for one image.

    Attributes:
        crop: top, left, height, width in pixels.
        flips: vertically, horizontally.
        colour: parameters of the colour jitter.
        affine: angle in degrees and scale, or None for neither.
    """

    crop: tuple[int, int, int, int]
    flips: tuple[bool, bool]
    colour: dict[str, Any]
    affine: tuple[float, float] | None

    def view(self, values: np.ndarray) -> np.ndarray:
        """The crop of (..., H, W) values, flipped: a view."""
        top, left, height, width = self.crop
        steps = (-1 if flip else 1 for flip in self.flips)
        rows, columns = (slice(None, None, step) for step in steps)
        return values[..., top : top + height, left : left + width][..., rows, columns]


class Augmentation:
    """The augmentation that a config's `data_transforms` section asks for."""

    def __init__(self, settings: Any) -> None:
        self.crop_size = int(settings.img_size) if settings.use_random_crop else None
        brightness = settings.brightness if settings.use_brightness else 0
        saturation = settings.saturation if settings.use_saturation else 0
        self._colour = (
            v2.ColorJitter(brightness=brightness, saturation=saturation) if brightness or saturation else None
        )
        self._flips = (settings.use_vertical_flip, settings.use_horizontal_flip)
        angle = settings.rotation_angle if settings.use_rotation else 0
        scale = tuple(settings.random_scale) if settings.use_random_scale else None
        self._affine = v2.RandomAffine(degrees=angle, scale=scale) if angle or scale else None

    def draw(self, size: tuple[int, int]) -> Draw:
        """Draw for an image of `size` (H, W), from torch's CPU generator: crop, colour, flips, rotation and scale."""
        crop = (0, 0, *size)
        if self.crop_size is not None:
            shape = tuple(min(self.crop_size, side) for side in size)
            drawn = v2.RandomCrop(shape).make_params([torch.empty(size, device="meta")])
            crop = (drawn["top"], drawn["left"], *shape)
        colour = self._colour.make_params([]) if self._colour else {}
        horizontal = self._flips[1] and bool(torch.rand(1) < 0.5)
        vertical = self._flips[0] and bool(torch.rand(1) < 0.5)
        affine = None
        if self._affine:
            drawn = self._affine.make_params([torch.empty(crop[2:], device="meta")])
            affine = (drawn["angle"], drawn["scale"])
        return Draw(crop, (vertical, horizontal), colour, affine)

    def recolour(self, image: Tensor, draw: Draw) -> Tensor:
        """The image (3, h, w), float in 0..1, with the drawn colours; it may be changed in place."""
        if not self._colour:
            return image
        if draw.colour["saturation_factor"] is None:
            return image.mul_(draw.colour["brightness_factor"]).clamp_(0, 1)
        return self._colour.transform(image, draw.colour)


def rotate_and_scale(image: Tensor, mask: Tensor, angle: float, scale: float) -> tuple[Tensor, Tensor]:
    """Turn and scale about the centre: the image bilinearly, the mask by nearest neighbour, 0 where nothing is known.

    To the bit what torchvision's `affine` does to each with `fill=0`, on a grid computed once: so a pixel at the seam,
    a share of which is known, is weighted by that share twice.

    Args:
        image: (C, h, w) float32.
        mask: (h, w) uint8.
        angle: in degrees, clockwise.
        scale: above 1 enlarges.
    """
    height, width = mask.shape
    cosine, sine = math.cos(math.radians(angle)) / scale, math.sin(math.radians(angle)) / scale
    # From output to input pixels, both counted from the centre; grid_sample's borders are -1 and 1.
    inverse = torch.tensor([[cosine, -sine], [sine, cosine], [0.0, 0.0]]) / torch.tensor([0.5 * width, 0.5 * height])
    grid = _centred_pixels(height, width).bmm(inverse[None]).view(1, height, width, 2)
    moved = functional.grid_sample(image[None], grid, "bilinear", "zeros", align_corners=False)[0]
    known = functional.grid_sample(torch.ones(1, 1, height, width), grid, "bilinear", "zeros", align_corners=False)[0]
    moved_mask = functional.grid_sample(mask[None, None].float(), grid, "nearest", "zeros", align_corners=False)[0, 0]
    return moved.mul_(known), moved_mask.to(mask.dtype)


@lru_cache(maxsize=4)
def _centred_pixels(height: int, width: int) -> Tensor:
    """(1, H * W, 3): x and y of each pixel, counted from the image's centre, and 1."""
    x = torch.linspace((1.0 - width) * 0.5, (width - 1.0) * 0.5, steps=width)
    y = torch.linspace((1.0 - height) * 0.5, (height - 1.0) * 0.5, steps=height)
    y, x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([x, y, torch.ones_like(x)], dim=-1).view(1, height * width, 3)
