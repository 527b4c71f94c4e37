"""The dataset: one sample for every foreground label of every image of a split."""

import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from data_transforms.data_transforms import Data_Transform
from datasets.cache import ImageCache, Pair, compact
from datasets.io import read_image, read_size
from datasets.masks import FIELD_OF_VIEW, MaskFinder, read_field_of_view, read_labels
from datasets.split import split_csv
from datasets.validation import run_split
from utils.errors import ConfigError, UserError
from utils.pools import usable_cores

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """One label of one image.

    Attributes:
        name: the image's path below images/, as in the split file; unique, which the bare file name may not be.
        image_path, mask_path: the two files.
        fov_path: the file of the field of view; None where the data set has no folder fov/, and in training.
        label_value: the label's value in masks and in `label_list`.
        label_name: the label's name.
    """

    name: str
    image_path: Path
    mask_path: Path
    label_value: int
    label_name: str
    fov_path: Path | None = None


class GeneralDataset(Dataset):
    """The samples of one split: for every image, in the order of the split file, one for each foreground label.

    The constructor reads and checks all masks, so that a bad file stops a run before it starts. It keeps resized images
    in memory, without loss, up to `cache_bytes`; forked workers share them.

    Raises: UserError that names the file: an empty split; an image or mask that is missing or unreadable; a mask of
    another size than its image, or with values outside `label_list`; an image that [a_min, a_max] does not fit. Images
    beyond `cache_bytes` are decoded only on access, so their errors come then.
    """

    def __init__(self, config: Any, split: str, train: bool, seed: int = 0, cache_bytes: int = 1 << 30) -> None:
        """Args:
        config: the resolved config; its `data` and `data_transforms` sections and its seed are used.
        split: "train", "val" or "test".
        train: whether samples are augmented, deterministically by (seed, epoch, index).
        """
        data = config.data
        root = Path(data.root_path)
        self.label_list = list(data.label_list)
        self.transform = Data_Transform(config.data_transforms, train)
        self.train, self.seed = train, seed
        names = run_split(data, config.seed)[split]
        if not names:
            raise UserError(f"{split_csv(data)}: no image of split {split!r}")
        pairs = list(_pairs(root, names))
        fields = [None] * len(names) if train else _fields_of_view(root, names)
        self.samples = [
            Sample(name, image, mask, value, label, fov)
            for name, (image, mask), fov in zip(names, pairs, fields, strict=True)
            for value, label in zip(self.label_list[1:], data.label_names[1:], strict=True)
        ]
        self._cache = ImageCache(cache_bytes)
        self._sizes: dict[Path, tuple[int, int]] = {}
        self._last_positions: tuple[Path, np.ndarray] | None = None  # several labels of an image share its mask
        self._check_and_fill(pairs)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: int | tuple[int, ...]) -> dict[str, Any]:
        """Return one sample, for an index, (epoch, index), or, where it is drawn again, (epoch, index, times before).

        An index alone means epoch 0.

        Keys: image (3, S, S) float32, normalized and padded; mask (S, S) float32 in {0, 1}; label, its name; index;
        name, of the image below images/; size, (H, W) of the file; valid, (h, w) of the un-padded part. At native scale
        and outside training, image and mask are as large as the file where that is larger than S.
        """
        epoch, index, *again = key if isinstance(key, tuple) else (0, key)
        epoch, index = int(epoch), range(len(self))[index]
        sample = self.samples[index]
        image, positions = self._loaded(sample)
        mask = (positions == self.label_list.index(sample.label_value)).astype(np.uint8)
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which also seeds the GPU's generators, and fork_rng would not restore those.
            torch.default_generator.manual_seed(_mixed_seed(self.seed, epoch, index, *again))
            image_out, mask_out, valid = self.transform.finish(image, mask)
        return {
            "image": image_out,
            "mask": mask_out.float(),
            "label": sample.label_name,
            "index": index,
            "name": sample.name,
            "size": self._sizes[sample.image_path],
            "valid": valid,
        }

    def native_mask(self, index: int) -> np.ndarray:
        """Return the sample's mask at the file's own size: (H, W) bool."""
        sample = self.samples[index]
        if self._last_positions is None or self._last_positions[0] != sample.mask_path:
            size = self._sizes[sample.image_path]
            positions = read_labels(sample.mask_path, self.label_list, sample.image_path, size)
            self._last_positions = sample.mask_path, positions
        return self._last_positions[1] == self.label_list.index(sample.label_value)

    def native_fov(self, index: int) -> np.ndarray | None:
        """Return the sample's field of view at the file's own size, (H, W) bool; None where the data set has none."""
        sample = self.samples[index]
        if sample.fov_path is None:
            return None
        return read_field_of_view(sample.fov_path, sample.image_path, self._sizes[sample.image_path])

    def native_image(self, index: int) -> np.ndarray:
        """Return the sample's image at the file's own size: (H, W, 3) uint8, [a_min, a_max] stretched to 0..255."""
        image = read_image(self.samples[index].image_path)
        return np.rint(self.transform.intensity(image) * 255).astype(np.uint8)

    def _check_and_fill(self, pairs: list[tuple[Path, Path]]) -> None:
        """Check every mask and cache the first images, on a few threads (decoders release the GIL)."""
        images, total = [image for image, _ in pairs], len(pairs)

        def check(pair: tuple[Path, Path]) -> None:
            read_labels(pair[1], self.label_list, pair[0], self._sizes[pair[0]])

        with ThreadPoolExecutor(min(8, usable_cores())) as pool:
            try:
                self._sizes = dict(zip(images, pool.map(read_size, images), strict=True))
                # An image reserves its largest possible size before decoding; what it leaves over goes to later ones.
                while count := self._cache.fitting([self._loaded_pixels(image) for image, _ in pairs]):
                    first, pairs = pairs[:count], pairs[count:]
                    for (image, _), loaded in zip(first, pool.map(lambda pair: self._load(*pair), first), strict=True):
                        self._cache.put(image, loaded)
                list(pool.map(check, pairs))
                firsts = range(0, len(self.samples), len(self.label_list) - 1)  # of each image
                list(pool.map(self.native_fov, firsts))
            except UserError:
                pool.shutdown(cancel_futures=True)
                raise
        logger.debug("cached %d of %d images, %d bytes", len(self._cache), total, self._cache.used)

    def _loaded_pixels(self, image: Path) -> int:
        return math.prod(self.transform.load_shape(self._sizes[image]))

    def _loaded(self, sample: Sample) -> Pair:
        return self._cache.get(sample.image_path) or self._load(sample.image_path, sample.mask_path)

    def _load(self, image_path: Path, mask_path: Path) -> Pair:
        """Decode and resize. Returns: image as from `compact`, positions in label_list (h, w) uint8."""
        image = read_image(image_path)
        positions = read_labels(mask_path, self.label_list, image_path, image.shape[:2])
        try:
            self.transform.check(image)
            resized, mask = self.transform.load(image, positions)
        except ConfigError as error:
            raise ConfigError(f"{image_path}: {error}") from None
        return compact(resized), mask


class EpochSampler(Sampler[tuple[int, ...]]):
    """Yields (epoch, index) for every index of a dataset, in an order drawn from (seed, epoch).

    The epoch is part of the key because workers need it for the augmentation. With `weights`, one a sample, as many
    samples are drawn in proportion to them, with replacement; a key then ends in how often its sample was drawn before.
    """

    def __init__(self, dataset: Sized, seed: int = 0, weights: Sequence[float] | None = None) -> None:
        self.dataset, self.seed, self.epoch, self.weights = dataset, seed, 0, weights

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        generator = torch.Generator().manual_seed(_mixed_seed(self.seed, self.epoch))
        if self.weights is None:
            order = torch.randperm(len(self.dataset), generator=generator).tolist()
            return iter([(self.epoch, index) for index in order])
        chances = torch.tensor(self.weights, dtype=torch.float64)
        order = torch.multinomial(chances, len(self.dataset), replacement=True, generator=generator).tolist()
        drawn: Counter[int] = Counter()
        keys = []
        for index in order:
            keys.append((self.epoch, index, drawn[index]))
            drawn[index] += 1
        return iter(keys)


def _fields_of_view(root: Path, names: list[str]) -> list[Path | None]:
    """Return the file of each name in fov/; Nones if there is no such folder. Raises: UserError if one is missing."""
    fields = MaskFinder(root / "fov", FIELD_OF_VIEW)
    return [fields.find(name) for name in names] if fields.folder.is_dir() else [None] * len(names)


def _pairs(root: Path, names: list[str]) -> Iterator[tuple[Path, Path]]:
    """Yield image and mask path of each name. Raises: UserError if one is missing."""
    masks = MaskFinder(root / "masks")
    for name in names:
        image = root / "images" / name
        if not image.is_file():
            raise UserError(f"{image}: no such image; the split file lists it")
        yield image, masks.find(name)


def _mixed_seed(*parts: int) -> int:
    """Hash several numbers to one 63-bit seed; neighbouring numbers give unrelated seeds."""
    return int(np.random.SeedSequence([part % 2**64 for part in parts]).generate_state(1, np.uint64)[0] >> np.uint64(1))
