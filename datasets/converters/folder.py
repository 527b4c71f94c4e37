"""A user's own images and masks, in two folders or in one, with their subfolders."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from datasets.converters.classes import Classes, check_without_classes, parse_classes
from datasets.converters.pattern import Pairing, pair_by
from datasets.converters.plan import Case, Pair, Plan, fraction_sizes, own_labels
from datasets.converters.proposal import propose
from datasets.converters.search import images_below
from datasets.io import read_image, read_mask
from datasets.masks import check_size
from utils.errors import ConfigError, UserError

_SHOWN_PAIRS = 5
_SHOWN_UNPAIRED = 10


def convert(
    source: Path | None,
    *,
    seed: int,
    images: Path | None = None,
    masks: Path | None = None,
    pattern: str | None = None,
    classes: list[str] | None = None,
    threshold: int | None = None,
    test_fraction: float = 0.3,
    val_fraction: float = 0.0,
) -> Plan:
    """Pair the image files of two folders, subfolders included. Unpaired files are listed and left out.

    Mask values are kept: 0/1, 0/255 or labels; with `classes` they are 1, 2, ... in their order, or 0/255 for one.
    Images of one {group} go to the same split.

    Args:
        masks: left out, the masks are in the folder of the images.
        pattern: which mask belongs to which image, see `pair_by`; None proposes a pattern.
        classes: as `parse_classes` reads them.
        threshold: mask pixels above it are foreground (255), all others background.
        test_fraction, val_fraction: of the images; the rest trains. A fraction above 0 gets at least one image.

    Raises: ConfigError for a bad option; UserError if no files pair, or that names a file that cannot be used.
    """
    if source is not None or images is None:
        raise ConfigError("prepare folder needs --images DIR, --masks DIR unless they are in it, and takes no --source")
    if classes and threshold is not None:
        raise ConfigError("--classes and --threshold: give one of them")
    named = parse_classes(classes) if classes else None
    image_files = images_below(images)
    mask_files = image_files if masks is None else images_below(masks)
    masks = masks or images
    pairing = pair_by(pattern, image_files, mask_files) if pattern else propose(image_files, mask_files)
    if not pairing.pairs:
        raise UserError(_no_pairs(pattern, images, masks, image_files, mask_files))
    if named is None and threshold is None:
        check_without_classes(pairing.pairs[0][1])
    names = _names(image_files)
    cases = [
        Case(names[image], partial(_read, image, mask, named, threshold), group=pairing.groups.get(image))
        for image, mask in pairing.pairs
    ]
    unmatched = [path.name for path in (*pairing.unpaired_images, *pairing.unpaired_masks)]
    return Plan(
        cases,
        fraction_sizes(len(cases), test_fraction, val_fraction),
        {"pattern": pairing.pattern, "unmatched": unmatched},
        [*_describe(pairing, images, masks), *_group_hint(pairing, image_files, mask_files)],
        labels=named.labels if named else {},
    )


def _names(files: Mapping[str, Path]) -> dict[Path, str]:
    """A name for each image: its own, with the folders before it where another image has it too."""
    number = Counter(path.stem.lower() for path in files.values())
    long = {path: key.replace("/", "_").removesuffix(path.suffix) for key, path in files.items()}
    return {path: path.stem if number[path.stem.lower()] == 1 else long[path] for path in files.values()}


def _no_pairs(
    pattern: str | None, images: Path, masks: Path, image_files: Mapping[str, Path], mask_files: Mapping[str, Path]
) -> str:
    tried = f"by {pattern}" if pattern else "by what their names share"
    if image_files == mask_files:
        found = f"none of {len(image_files)} files ({_some(image_files)}) pairs with another"
        other = "" if pattern else " --masks DIR if the masks lie elsewhere, or"
    else:
        found = (
            f"none of {len(image_files)} images ({_some(image_files)}) pairs with any of {len(mask_files)} files in "
        )
        found, other = f"{found}{masks} ({_some(mask_files)})", ""
    return f"{images}: {found} {tried}; give{other} --pattern, such as {{id}}_image={{id}}_mask"


def _some(files: Mapping[str, Path]) -> str:
    return ", ".join(list(files)[:2]) + (", ..." if len(files) > 2 else "")


def _describe(pairing: Pairing, images: Path, masks: Path) -> Sequence[str]:
    lines = [f"pairing by {pairing.pattern}: {len(pairing.pairs)} pairs"]
    shown = [(image.relative_to(images), mask.relative_to(masks)) for image, mask in pairing.pairs[:_SHOWN_PAIRS]]
    lines += [f"  {image.as_posix()}  <->  {mask.as_posix()}" for image, mask in shown]
    if (more := len(pairing.pairs) - _SHOWN_PAIRS) > 0:
        lines.append(f"  ... and {more} more")
    if pairing.others:
        lines.append("the images have other masks too; to take those, give --pattern with")
        lines += [f"  '{other.pattern}': {len(other.pairs)} pairs" for other in pairing.others]
    for kind, folder, unpaired in (("image", images, pairing.unpaired_images), ("mask", masks, pairing.unpaired_masks)):
        if unpaired:
            lines.append(f"left out, {kind}s in {folder} that have no partner: {len(unpaired)}")
            lines += [f"  {path.name}" for path in unpaired[:_SHOWN_UNPAIRED]]
            if (more := len(unpaired) - _SHOWN_UNPAIRED) > 0:
                lines.append(f"  ... and {more} more, all in dataset.json")
    return lines


def _group_hint(pairing: Pairing, image_files: Mapping[str, Path], mask_files: Mapping[str, Path]) -> list[str]:
    """The pattern that keeps each folder in one split, where images of a folder are several and it would pair them."""
    folders = Counter(image.parent for image, _ in pairing.pairs)
    if pairing.groups or not 2 <= len(folders) < len(pairing.pairs) or "/" in pairing.pattern:
        return []
    image_side, _, mask_side = pairing.pattern.partition("=")
    pattern = f"{{group}}/{image_side}={{group}}/{mask_side}"
    try:
        same = set(pair_by(pattern, image_files, mask_files).pairs) == set(pairing.pairs)
    except UserError:
        return []
    return [f"if a folder is a patient, keep it in one split: --pattern '{pattern}'"] if same else []


def _read(image: Path, mask: Path, classes: Classes | None, threshold: int | None) -> Pair:
    values = read_image(image)
    labels = classes.read(mask) if classes else own_labels(read_mask(mask), mask, threshold)
    check_size(labels, mask, values.shape, image)
    return values, labels
