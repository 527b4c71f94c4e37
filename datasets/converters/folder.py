"""A user's own images and masks, in two folders or in one."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from datasets.converters.pattern import Pairing, pair_by, propose
from datasets.converters.plan import Case, Pair, Plan, check_sizes
from datasets.converters.search import images_by_stem
from datasets.io import read_image, read_mask
from utils.errors import ConfigError, UserError

_SHOWN_PAIRS = 5
_MOST_LABELS = 64  # a mask of more values is a picture


def convert(
    source: Path | None,
    *,
    seed: int,
    images: Path | None = None,
    masks: Path | None = None,
    pattern: str | None = None,
    threshold: int | None = None,
    test_fraction: float = 0.3,
    val_fraction: float = 0.0,
) -> Plan:
    """Pair the image files of two folders, show the pairing and what has no partner, and leave the latter out.

    Mask values stay as they are: 0/1, 0/255 or labels. Whatever split is drawn keeps the images of a {group} together.

    Args:
        pattern: which mask belongs to which image, see `pair_by`; None proposes one.
        threshold: mask pixels above it are foreground (255), all others background.
        test_fraction, val_fraction: of the images; the rest trains. Each split that is asked for gets one at least.

    Raises: ConfigError for a bad option; UserError if nothing pairs, or that names a file that can't be used.
    """
    if source is not None or images is None or masks is None:
        raise ConfigError("prepare folder needs --images DIR and --masks DIR, and takes no --source")
    if not (0 <= test_fraction < 1 and 0 <= val_fraction < 1 and test_fraction + val_fraction < 1):
        raise ConfigError("--test_fraction and --val_fraction must be from 0 and leave some images to train")
    files = images_by_stem(images), images_by_stem(masks)
    pairing = pair_by(pattern, *files) if pattern else propose(*files)
    lines = _describe(pairing, images, masks)
    if not pairing.pairs:
        raise UserError(
            f"{images}: none of {len(files[0])} images pairs with one of {len(files[1])} files in {masks} by "
            f"{pairing.pattern}; give --pattern, such as {{id}}_image={{id}}_mask"
        )
    cases = [
        Case(image.stem, partial(_read, image, mask, threshold), group=pairing.groups.get(image))
        for image, mask in pairing.pairs
    ]
    unmatched = [path.name for path in (*pairing.lone_images, *pairing.lone_masks)]
    notes = {"pattern": pairing.pattern, "unmatched": unmatched}
    return Plan(cases, _counts(len(cases), test_fraction, val_fraction), notes, lines)


def _counts(number: int, test_fraction: float, val_fraction: float) -> dict[str, int]:
    test, val = (max(1, round(number * part)) if part else 0 for part in (test_fraction, val_fraction))
    if test + val >= number:
        raise UserError(f"{number} pairs can't be split into train, {val} val and {test} test; lower the fractions")
    return {"train": number - test - val, "val": val, "test": test}


def _describe(pairing: Pairing, images: Path, masks: Path) -> Sequence[str]:
    lines = [f"pairing by {pairing.pattern}: {len(pairing.pairs)} pairs"]
    lines += [f"  {image.name}  <->  {mask.name}" for image, mask in pairing.pairs[:_SHOWN_PAIRS]]
    if (more := len(pairing.pairs) - _SHOWN_PAIRS) > 0:
        lines.append(f"  ... and {more} more")
    for kind, folder, lone in (("image", images, pairing.lone_images), ("mask", masks, pairing.lone_masks)):
        if lone:
            lines.append(f"left out, {kind}s without a partner in {folder}: {len(lone)}")
            lines += [f"  {path.name}" for path in lone]
    return lines


def _read(image: Path, mask: Path, threshold: int | None) -> Pair:
    values, labels = read_image(image), read_mask(mask)
    check_sizes(values, image, labels, mask)
    if threshold is not None:
        return values, labels > threshold
    found = np.unique(labels)
    if len(found) > _MOST_LABELS or found[-1] > 255:
        raise UserError(
            f"{mask}: {len(found)} values up to {found[-1]} are no labels; is it a JPEG or a probability map? "
            "Cut it with --threshold"
        )
    return values, labels
