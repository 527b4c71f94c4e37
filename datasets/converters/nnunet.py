"""nnU-Net's raw data: imagesTr, labelsTr and dataset.json; PNG, TIFF, or NIfTI as slices."""

import json
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from datasets.converters.nifti import NIFTI_SUFFIXES, read_volume
from datasets.converters.plan import Case, Pair, Plan, fraction_sizes, own_labels
from datasets.converters.search import NO_SOURCE_OF_OWN, contents_of, files_below, find_in_source
from datasets.converters.slices import slice_cases, to_16_bits
from datasets.io import IMAGE_SUFFIXES, read_image, read_mask
from datasets.masks import check_size
from utils.errors import ConfigError, UserError

_SUFFIXES = (*NIFTI_SUFFIXES, *IMAGE_SUFFIXES)
_MAX_CHANNELS = 3


def convert(source: Path | None, *, seed: int, test_fraction: float = 0.3, val_fraction: float = 0.0) -> Plan:
    """Pair imagesTr/X_0000.png with labelsTr/X.png. Labels keep their values and get the names of dataset.json.

    Up to three channel files of a case (X_0000, X_0001, ...) become the colours of one image. Of a NIfTI volume each
    slice of the third axis that holds a label is an image; the slices of a case stay in one split. The test split is
    imagesTs with labelsTs, where labelsTs is there, and else drawn.

    Raises: UserError that names the file, and what is missing or wrong.
    """
    if source is None:
        raise ConfigError(NO_SOURCE_OF_OWN)
    root = find_in_source(source, "imagesTr", "dataset.json").parent
    labels = _labels(root / "dataset.json")
    has_test = (root / "labelsTs").is_dir()
    cases, skipped, volumes = [], 0, 0
    for part in ("Tr", "Ts") if has_test else ("Tr",):
        split = {"Tr": "train", "Ts": "test"}[part] if has_test else None
        for name, mask, channels in _files(root, part):
            found, left_out = _cases(name, mask, channels, tuple(labels), split)
            cases += found
            skipped += left_out
            volumes += mask.name.lower().endswith(NIFTI_SUFFIXES)
    if has_test:
        sizes: dict[str, int] = {}
    else:
        sizes = fraction_sizes(len(cases), test_fraction, val_fraction)
    lines = ["labels: " + ", ".join(f"{value} {name}" for value, name in labels.items())]
    lines += (
        [f"{len(cases)} slices with a label of {volumes} volumes; {skipped} without one left out"] if volumes else []
    )
    return Plan(cases, sizes, {"slices_without_label": skipped}, lines, labels=labels)


def _labels(path: Path) -> dict[int, str]:
    """The foreground labels of a dataset.json, {value: name}, of nnU-Net 2 ({name: value}) or 1 ({value: name})."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["labels"].items()
        pairs = [(int(key), str(value)) if str(key).isdecimal() else (value, str(key)) for key, value in entries]
    except FileNotFoundError:
        raise UserError(f"{path}: missing; it names the labels") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a dataset.json of nnU-Net, with labels ({error!r})") from error
    if regions := [name for value, name in pairs if not isinstance(value, int)]:
        raise UserError(f"{path}: label {regions[0]} is a region of several values; list single values")
    if any(name == "ignore" for _, name in pairs):  # reserved by nnU-Net for pixels that are neither trained nor scored
        raise UserError(f"{path}: has the label 'ignore', which this project does not know; give these pixels a label")
    return {value: name for value, name in sorted(pairs) if value != 0}


def _files(root: Path, part: str) -> list[tuple[str, Path, list[Path]]]:
    """(case, mask, channel files) of imagesTr and labelsTr, or imagesTs and labelsTs."""
    images, masks = (root / f"{kind}{part}" for kind in ("images", "labels"))
    for folder in (images, masks):
        if not folder.is_dir() or not files_below(folder, _SUFFIXES):
            found = contents_of(folder) if folder.is_dir() else "it is missing"
            raise UserError(f"{folder}: no image ({', '.join(_SUFFIXES)}) in it; {found}")
    channels: dict[str, list[Path]] = {}
    for path in files_below(images, _SUFFIXES):
        match = re.fullmatch(r"(.+)_(\d{4})", _stem(path))
        if match is None:
            raise UserError(f"{path}: the name must end in a channel's number, such as {_stem(path)}_0000")
        channels.setdefault(match[1], []).append(path)
    by_name = {_stem(path): path for path in files_below(masks, _SUFFIXES)}
    for name in sorted(channels.keys() ^ by_name.keys()):
        raise UserError(
            f"{channels[name][0]}: no label {name} in {masks}"
            if name in channels
            else f"{by_name[name]}: no image {name}_0000 in {images}"
        )
    return [(name, by_name[name], paths) for name, paths in channels.items()]


def _stem(path: Path) -> str:
    suffix = next(suffix for suffix in _SUFFIXES if path.name.lower().endswith(suffix))
    return path.name[: -len(suffix)]


def _cases(
    name: str, mask: Path, channels: Sequence[Path], allowed: tuple[int, ...], split: str | None
) -> tuple[list[Case], int]:
    """The cases of one nnU-Net case, and how many slices were left out."""
    if len(channels) > _MAX_CHANNELS:
        raise UserError(f"{channels[_MAX_CHANNELS]}: a case of more than {_MAX_CHANNELS} channels; remove some")
    if not mask.name.lower().endswith(NIFTI_SUFFIXES):
        return [Case(name, partial(_read, mask, channels, allowed), split)], 0
    slices = read_volume(mask)
    cases = slice_cases(name, slices, partial(_read_slice, mask, channels, allowed), split)
    return cases, len(slices) - len(cases)


def _read(mask: Path, channels: Sequence[Path], allowed: tuple[int, ...]) -> Pair:
    labels = _checked(read_mask(mask), mask, allowed)
    images = [read_image(path) for path in channels]
    for path, image in zip(channels, images, strict=True):
        check_size(labels, mask, image.shape, path)
    return _joined(images), labels


def _read_slice(mask: Path, channels: Sequence[Path], allowed: tuple[int, ...], number: int) -> Pair:
    labels = _checked(read_volume(mask)[number], mask, allowed)
    images = []
    for path in channels:
        volume = read_volume(path)
        if volume.shape[1:] != labels.shape or len(volume) <= number:
            raise UserError(f"{mask}: is of another shape than {path.name}")
        images.append(to_16_bits(volume, volume[number])[..., None].repeat(3, axis=-1))
    return _joined(images), labels


def _checked(values: np.ndarray, path: Path, allowed: tuple[int, ...]) -> np.ndarray:
    labels = own_labels(values, path, None)
    if unknown := np.setdiff1d(labels, (0, *allowed)).tolist():
        raise UserError(f"{path}: holds the value {unknown[0]}, which dataset.json does not name")
    return labels


def _joined(images: Sequence[np.ndarray]) -> np.ndarray:
    """Channels (H, W, 3), each grey, as the colours of one image; an only one stays as it is."""
    if len(images) == 1:
        return images[0]
    eight_bits: list[Any] = [image if image.dtype == np.uint8 else np.rint(image / 257) for image in images]
    grey = [image.mean(axis=-1) for image in eight_bits] + [np.zeros(images[0].shape[:2])] * (3 - len(images))
    return np.rint(np.stack(grey, axis=-1)).astype(np.uint8)
