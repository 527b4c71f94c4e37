"""MedSAM's npz files: images `imgs` with masks `gts`, one image or the slices of a volume each."""

from functools import partial
from pathlib import Path

import numpy as np

from datasets.converters.classes import Classes, parse_classes
from datasets.converters.plan import Case, Pair, Plan, fraction_sizes, own_labels
from datasets.converters.search import NO_SOURCE_OF_OWN, contents_of, files_below
from datasets.converters.slices import slice_cases, to_16_bits
from utils.errors import ConfigError, UserError, first_line

_KEYS = (("imgs", "gts"), ("img", "gt"))


def convert(
    source: Path | None,
    *,
    seed: int,
    classes: list[str] | None = None,
    threshold: int | None = None,
    test_fraction: float = 0.3,
    val_fraction: float = 0.0,
) -> Plan:
    """Take the images of all npz files below the source. Of a volume, slices without a label are left out.

    `imgs` is (H, W), (H, W, 3), (D, H, W) or (D, H, W, 3), `gts` (H, W) or (D, H, W). Slices of one file go to the
    same split. Images of another type than uint8 and uint16 are scaled to 16 bits, alike in one file.

    Args:
        classes: `name=value`, see `parse_classes`.
        threshold: mask pixels above it are foreground. With 0, numbered objects become one label.

    Raises: ConfigError for a bad option; UserError that names the file and what is wrong in it.
    """
    if source is None:
        raise ConfigError(NO_SOURCE_OF_OWN)
    if classes and threshold is not None:
        raise ConfigError("--classes and --threshold: give one of them")
    named = parse_classes(classes) if classes else None
    if named and named.in_colour:
        raise ConfigError("--classes: npz files hold values, no colours; write name=1")
    files = files_below(source, [".npz"])
    if not files:
        raise UserError(f"{source}: no .npz file below it; {contents_of(source)}")
    cases, left_out = [], 0
    for path in files:
        _, masks = _arrays(path)
        stem = "_".join(path.relative_to(source).with_suffix("").parts)
        read = partial(_read, path, named, threshold)
        if masks.ndim == 2:
            cases.append(Case(stem, partial(read, None)))
            continue
        slices = slice_cases(stem, masks, read)
        left_out += len(masks) - len(slices)
        cases += slices
    if not cases:
        raise UserError(f"{source}: none of {len(files)} .npz files holds a label")
    labels = named.labels if named else {}
    return Plan(
        cases,
        fraction_sizes(len(cases), test_fraction, val_fraction),
        {"slices_without_label": left_out},
        [f"{len(files)} .npz files"],
        labels=labels,
    )


def _arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images and masks of a file. Raises: UserError."""
    try:
        with np.load(path, allow_pickle=False) as content:
            for images, masks in _KEYS:
                if images in content and masks in content:
                    pair = content[images], content[masks]
                    break
            else:
                raise UserError(f"{path}: holds {', '.join(content.files) or 'nothing'}; expected imgs and gts")
    except UserError:
        raise
    except Exception as error:  # zlib, zipfile and numpy raise errors of many kinds, for a renamed .npy too
        raise UserError(f"{path}: not a readable npz file ({first_line(error)})") from error
    values, labels = pair
    if labels.ndim not in (2, 3) or values.shape[: labels.ndim] != labels.shape or labels.dtype.kind not in "iub":
        raise UserError(
            f"{path}: imgs {values.shape}, gts {labels.shape} of {labels.dtype}; expected (H, W[, 3]) with (H, W), "
            "or (D, H, W[, 3]) with (D, H, W), of integers"
        )
    if values.ndim > labels.ndim and values.shape[labels.ndim :] not in ((1,), (3,)):
        raise UserError(f"{path}: imgs {values.shape}: an image has 1 or 3 channels, in the last place")
    return values, labels


def _read(path: Path, classes: Classes | None, threshold: int | None, number: int | None) -> Pair:
    volume, labels = _arrays(path)
    image, mask = (volume, labels) if number is None else (volume[number], labels[number])
    if image.dtype not in (np.uint8, np.uint16):
        image = to_16_bits(volume, image)
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[..., 0]
    if image.ndim == 3 and image.dtype == np.uint16:
        image = np.rint(image / 257).astype(np.uint8)  # PNG has no colour of 16 bits here
    values = mask.astype(np.int64)
    return image, classes.labels_of(values, path) if classes else own_labels(values, path, threshold)
