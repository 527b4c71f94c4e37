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
_MAX_LABELS = 64  # a mask with more values is taken for a photograph


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
    """Pair the image files of two folders. Unpaired files are listed and left out.

    Mask values are kept: 0/1, 0/255 or labels. Images of one {group} go to the same split.

    Args:
        pattern: which mask belongs to which image, see `pair_by`; None proposes a pattern.
        threshold: mask pixels above it are foreground (255), all others background.
        test_fraction, val_fraction: of the images; the rest trains. A fraction above 0 gets at least one image.

    Raises: ConfigError for a bad option; UserError if no files pair, or that names a file that cannot be used.
    """
    if source is not None or images is None or masks is None:
        raise ConfigError("prepare folder needs --images DIR and --masks DIR, and takes no --source")
    if not (0 <= test_fraction < 1 and 0 <= val_fraction < 1 and test_fraction + val_fraction < 1):
        raise ConfigError("--test_fraction and --val_fraction must be at least 0 and leave some images for training")
    files = images_by_stem(images), images_by_stem(masks)
    pairing = pair_by(pattern, *files) if pattern else propose(*files)
    lines = _describe(pairing, images, masks)
    if not pairing.pairs:
        raise UserError(
            f"{images}: none of {len(files[0])} images pairs with any of {len(files[1])} files in {masks} by "
            f"{pairing.pattern}; give --pattern, such as {{id}}_image={{id}}_mask"
        )
    cases = [
        Case(image.stem, partial(_read, image, mask, threshold), group=pairing.groups.get(image))
        for image, mask in pairing.pairs
    ]
    unmatched = [path.name for path in (*pairing.unpaired_images, *pairing.unpaired_masks)]
    notes = {"pattern": pairing.pattern, "unmatched": unmatched}
    return Plan(cases, _counts(len(cases), test_fraction, val_fraction), notes, lines)


def _counts(number: int, test_fraction: float, val_fraction: float) -> dict[str, int]:
    test, val = (max(1, round(number * part)) if part else 0 for part in (test_fraction, val_fraction))
    if test + val >= number:
        raise UserError(f"{number} pairs cannot be split into train, {val} val and {test} test; lower the fractions")
    return {"train": number - test - val, "val": val, "test": test}


def _describe(pairing: Pairing, images: Path, masks: Path) -> Sequence[str]:
    lines = [f"pairing by {pairing.pattern}: {len(pairing.pairs)} pairs"]
    lines += [f"  {image.name}  <->  {mask.name}" for image, mask in pairing.pairs[:_SHOWN_PAIRS]]
    if (more := len(pairing.pairs) - _SHOWN_PAIRS) > 0:
        lines.append(f"  ... and {more} more")
    for kind, folder, unpaired in (("image", images, pairing.unpaired_images), ("mask", masks, pairing.unpaired_masks)):
        if unpaired:
            lines.append(f"left out, {kind}s in {folder} that have no partner: {len(unpaired)}")
            lines += [f"  {path.name}" for path in unpaired]
    return lines


def _read(image: Path, mask: Path, threshold: int | None) -> Pair:
    values, labels = read_image(image), read_mask(mask)
    check_sizes(values, image, labels, mask)
    if threshold is not None:
        return values, labels > threshold
    found = np.unique(labels)
    if len(found) > _MAX_LABELS or found[-1] > 255:
        raise UserError(
            f"{mask}: {len(found)} values up to {found[-1]} are not labels; is it a JPEG or a probability map? "
            "Use --threshold"
        )
    return values, labels
