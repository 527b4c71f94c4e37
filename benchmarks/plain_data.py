"""The input pipeline as it is usually written: decode each time, then torchvision's v2 transforms in a row."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from data_transforms.data_transforms import resize_shape


class PlainDataset(Dataset):
    """8-bit images with masks of 0/255, without a memory: what `GeneralDataset` gives, the slow way.

    Random numbers come from torch's global generator.
    """

    def __init__(self, pairs: list[tuple[Path, Path]], settings: Any) -> None:
        """Args:
        pairs: paths of image and mask.
        settings: a config's `data_transforms` section, without crops.
        """
        self.pairs, self.img_size = pairs, settings.img_size
        steps: list[v2.Transform] = [v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True)]
        brightness = settings.brightness if settings.use_brightness else 0
        saturation = settings.saturation if settings.use_saturation else 0
        if brightness or saturation:
            steps.append(v2.ColorJitter(brightness=brightness, saturation=saturation))
        mean, std = ([value / 255 for value in part] for part in (settings.pixel_mean, settings.pixel_std))
        steps.append(v2.Normalize(mean, std))
        if settings.use_horizontal_flip:
            steps.append(v2.RandomHorizontalFlip())
        if settings.use_vertical_flip:
            steps.append(v2.RandomVerticalFlip())
        angle = settings.rotation_angle if settings.use_rotation else 0
        scale = tuple(settings.random_scale) if settings.use_random_scale else None
        if angle or scale:
            steps.append(v2.RandomAffine(angle, scale=scale, interpolation=InterpolationMode.BILINEAR))
        self.transform = v2.Compose(steps)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return image (3, S, S) float32, normalized and padded, and mask (S, S) float32 in {0, 1}."""
        image_path, mask_path = self.pairs[index]
        image = v2.functional.pil_to_tensor(Image.open(image_path).convert("RGB"))
        mask = torch.from_numpy(np.array(Image.open(mask_path)) > 0)[None].to(torch.uint8)
        size = list(resize_shape(image.shape[-2:], self.img_size))
        image = v2.functional.resize(image, size, InterpolationMode.BILINEAR, antialias=True)
        mask = v2.functional.resize(mask, size, InterpolationMode.NEAREST_EXACT)
        image, mask = self.transform(tv_tensors.Image(image), tv_tensors.Mask(mask))
        padding = [0, 0, self.img_size - size[1], self.img_size - size[0]]
        image, mask = v2.functional.pad(image, padding), v2.functional.pad(mask, padding)
        return image.as_subclass(Tensor), mask.as_subclass(Tensor)[0].float()
