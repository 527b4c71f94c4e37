"""Images with masks as samples: one for every foreground label of every image of a split."""

import logging
import os
from collections.abc import Iterator, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler
from torchvision import tv_tensors

from data_transforms.data_transforms import Data_Transform
from datasets.io import read_image, read_size
from datasets.masks import MaskIndex, find_mask, index_masks, label_masks, read_labels
from datasets.split import read_split, split_csv
from utils.errors import UserError

__all__ = ["EpochSampler", "GeneralDataset", "Sample", "find_mask", "label_masks", "read_split"]

logger = logging.getLogger(__name__)

_IMAGE_STEPS = 65535  # resized images in 0..1 are kept as 16-bit integers: exact for 8-bit files at their own size


@dataclass(frozen=True)
class Sample:
    """One label of one image; `label_index` is the label's value in `label_list`."""

    image_path: Path
    mask_path: Path
    label_index: int
    label_name: str


class GeneralDataset(Dataset):
    """The samples of one split: for every image, in the split file's order, one a foreground label.

    All masks are read and checked here, so that a bad file ends the run before it begins. Images resized to what the
    transform starts from are kept in memory until `cache_bytes` are used; worker processes share them.

    Raises: UserError that names the file: an empty split, an image or mask that is missing, unreadable, of another size
    than its partner, or with values outside `label_list`.
    """

    def __init__(self, config: Any, split: str, train: bool, seed: int = 0, cache_bytes: int = 1 << 30) -> None:
        """Args:
        config: the resolved config; its `data` and `data_transforms` sections are used.
        split: "train", "val" or "test".
        train: whether samples are augmented, which is deterministic in (seed, epoch, index).
        """
        data = config.data
        root = Path(data.root_path)
        self.label_list = list(data.label_list)
        self.transform = Data_Transform(config.data_transforms, train)
        self.train, self.seed = train, seed
        names = read_split(data).get(split, [])
        if not names:
            raise UserError(f"{split_csv(data)}: no image of split {split!r}")
        pairs = list(_pairs(root, names))
        self.samples = [
            Sample(image, mask, index, name)
            for image, mask in pairs
            for index, name in zip(self.label_list[1:], data.label_names[1:], strict=True)
        ]
        self._cache: dict[Path, tuple[np.ndarray, np.ndarray]] = {}
        self._sizes: dict[Path, tuple[int, int]] = {}
        self._check_and_fill(pairs, cache_bytes)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        """Return one sample, for an index or for (epoch, index); an index alone means epoch 0.

        image (3, S, S) float32 normalized and padded, mask (S, S) float32 in {0, 1}, label (its name), index, name (of
        the image file), size (H, W) of the file, valid (h, w) of the un-padded part.
        """
        epoch, index = key if isinstance(key, tuple) else (0, key)
        epoch, index = int(epoch), range(len(self))[index]
        sample = self.samples[index]
        image, positions = self._loaded(sample)
        mask = (positions == self.label_list.index(sample.label_index)).astype(np.uint8)
        pair = (
            tv_tensors.Image(torch.from_numpy(image.astype(np.float32) / _IMAGE_STEPS)),
            tv_tensors.Mask(torch.from_numpy(mask)),
        )
        with torch.random.fork_rng(devices=[]):
            # The CPU generator alone: torch.manual_seed would set the GPU's too, which fork_rng then wouldn't restore.
            torch.default_generator.manual_seed(_mixed_seed(self.seed, epoch, index))
            image_out, mask_out, valid = self.transform.finish(*pair)
        return {
            "image": image_out,
            "mask": mask_out.float(),
            "label": sample.label_name,
            "index": index,
            "name": sample.image_path.name,
            "size": self._sizes[sample.image_path],
            "valid": valid,
        }

    def native_mask(self, index: int) -> np.ndarray:
        """Return the sample's mask at the file's own size: (H, W) bool."""
        sample = self.samples[index]
        size = self._sizes[sample.image_path]
        positions = read_labels(sample.mask_path, self.label_list, sample.image_path, size)
        return positions == self.label_list.index(sample.label_index)

    def native_image(self, index: int) -> np.ndarray:
        """Return the sample's image at the file's own size: (H, W, 3) uint8, [a_min, a_max] stretched to 0..255."""
        image = read_image(self.samples[index].image_path)
        return np.rint(self.transform.intensity(image) * 255).astype(np.uint8)

    def _check_and_fill(self, pairs: list[tuple[Path, Path]], cache_bytes: int) -> None:
        """Check every mask and keep resized images up to the budget, on a few threads (decoders release the lock)."""
        longest = self.transform.load_size
        room = max(0, cache_bytes) // (longest * longest * 7)  # 3 x 2 bytes of image and 1 of mask a pixel

        def check(pair: tuple[Path, Path]) -> None:
            self._sizes[pair[0]] = read_size(pair[0])
            read_labels(pair[1], self.label_list, pair[0], self._sizes[pair[0]])

        def fill(pair: tuple[Path, Path]) -> None:
            self._sizes[pair[0]] = read_size(pair[0])
            self._cache[pair[0]] = self._load(*pair)

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            try:
                list(pool.map(fill, pairs[:room]))
                list(pool.map(check, pairs[room:]))
            except UserError:
                pool.shutdown(cancel_futures=True)
                raise
        logger.debug("%d of %d images kept in memory", len(self._cache), len(pairs))

    def _loaded(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        kept = self._cache.get(sample.image_path)
        return kept if kept is not None else self._load(sample.image_path, sample.mask_path)

    def _load(self, image_path: Path, mask_path: Path) -> tuple[np.ndarray, np.ndarray]:
        """Decode and resize: image (3, h, w) uint16 over 0..1, positions in label_list (1, h, w) uint8."""
        image = read_image(image_path)
        positions = read_labels(mask_path, self.label_list, image_path, image.shape[:2])
        resized, mask = self.transform.load(image, positions)
        return np.rint(resized.numpy() * _IMAGE_STEPS).astype(np.uint16), mask.numpy()


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, index) for every index of a dataset, so that workers know the epoch that augmentation depends on.

    The order of an epoch is drawn from (seed, epoch), or is the dataset's own with `shuffle=False`.
    """

    def __init__(self, dataset: Sized, seed: int = 0, shuffle: bool = True) -> None:
        self.dataset, self.seed, self.shuffle, self.epoch = dataset, seed, shuffle, 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, order = self.epoch, list(range(len(self.dataset)))
        if self.shuffle:
            generator = torch.Generator().manual_seed(_mixed_seed(self.seed, epoch))
            order = torch.randperm(len(order), generator=generator).tolist()
        return iter([(epoch, index) for index in order])


def _pairs(root: Path, names: list[str]) -> Iterator[tuple[Path, Path]]:
    """Yield image and mask path of each name. Raises: UserError if one isn't there."""
    indices: dict[Path, MaskIndex] = {}
    for name in names:
        image, folder = root / "images" / name, (root / "masks" / name).parent
        if not image.is_file():
            raise UserError(f"{image}: no such image; the split file lists it")
        if folder not in indices:
            indices[folder] = index_masks(folder)
        yield image, find_mask(root / "masks", name, indices[folder])


def _mixed_seed(*parts: int) -> int:
    """One 63-bit seed from several numbers, far apart for neighbouring ones."""
    return int(np.random.SeedSequence([part % 2**64 for part in parts]).generate_state(1, np.uint64)[0] >> np.uint64(1))
