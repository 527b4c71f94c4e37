"""Proposing which masks belong to which images, by what their names have in common."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from datasets.converters.pattern import Pairing, file_name, pair_by
from datasets.converters.search import natural
from utils.errors import UserError

_SAMPLE = 40  # images whose names are compared with those of all masks
_CANDIDATES = 24
# The words in names of files and folders that say: this is a mask. "1st_manual" and "manual2" count as well.
_MASK_WORD = re.compile(
    r"masks?|labels?(tr|ts)?|\d?(st|nd)?manual\d*|\d(st|nd)ho|observer\d*|gt|truth|groundtruth|seg\w*|annot\w*|vessels?"
)
_Files = Mapping[str, Path]


def propose(images: _Files, masks: _Files) -> Pairing:
    """Return the pairing by the pattern, among likely ones, that pairs the most files; it may pair none.

    A pattern is likely if names of masks hold the id of an image: its name, without or with the text that all images
    share at the end, or at both ends. Where several kinds of masks pair equally well, the first in natural order is
    taken and the others are in `others`; one named "mask" comes last, since many sets call the field of view so.

    Args:
        images, masks: as for `pair_by`. Both may be the same files.
    """
    found = []
    for pattern in _likely_patterns(images, masks):
        try:
            found.append(pair_by(pattern, images, masks))
        except UserError:  # two files match alike
            continue
    found = [pairing for pairing in found if pairing.pairs]
    if not found:
        return Pairing("{id}={id}", [], {}, list(images.values()), list(masks.values()))
    best = min(found, key=lambda pairing: (-len(pairing.pairs), *_rank(pairing.pattern)))
    others = _others(best, found)
    used = {mask for other in others for _, mask in other.pairs}
    return replace(
        best,
        others=others,
        unpaired_images=[path for path in best.unpaired_images if path not in used],
        unpaired_masks=[path for path in best.unpaired_masks if path not in used],
    )


def _rank(pattern: str) -> tuple[bool, int, list[tuple[int, int, str]]]:
    image_side, _, mask_side = pattern.partition("=")
    return "mask" in re.split(r"[^a-z]+", mask_side.lower()), len(image_side), natural(mask_side)


def _others(best: Pairing, found: Sequence[Pairing]) -> list[Pairing]:
    """The pairings with other masks, for at least half as many of the same images, each mask in one of them."""
    images, used = {image for image, _ in best.pairs}, {mask for _, mask in best.pairs}
    others = []
    for pairing in sorted(found, key=lambda pairing: (-len(pairing.pairs), *_rank(pairing.pattern))):
        masks = {mask for _, mask in pairing.pairs}
        same = {image for image, _ in pairing.pairs} <= images
        if same and not masks & used and 2 * len(masks) >= len(best.pairs):
            others.append(pairing)
            used |= masks
    return others


def _likely_patterns(images: _Files, masks: _Files) -> list[str]:
    """The most frequent patterns, those that leave more of the image's name in {id} first."""
    patterns: Counter[str] = Counter()
    for some_images, some_masks in _parts(images, masks):
        for by_path in (False, True):
            parts = (some_images, some_masks)
            names, mask_names = ([key if by_path else file_name(key) for key in part] for part in parts)
            start, end = _affixes(names)
            for affixes in dict.fromkeys([("", ""), ("", end), (start, end)]):
                patterns += _templates(names, mask_names, *affixes)
    return [pattern for pattern, _ in patterns.most_common(_CANDIDATES)]


def _parts(images: _Files, masks: _Files) -> list[tuple[_Files, _Files]]:
    """Images and masks as given; of files that are both, also those whose names or endings tell them apart."""
    if images != masks:
        return [(images, masks)]
    marked = {key for key in images if any(map(_MASK_WORD.fullmatch, re.split(r"[^a-z0-9]+", key.lower())))}
    not_jpeg = {key for key, path in images.items() if path.suffix.lower() not in (".jpg", ".jpeg")}
    parts = [(images, images)]
    for of_masks in (marked, not_jpeg):
        split = {key: images[key] for key in images if key not in of_masks}, {key: images[key] for key in of_masks}
        if all(split):
            parts.append(split)
    return parts


def _templates(names: Sequence[str], mask_names: Sequence[str], start: str, end: str) -> Counter[str]:
    """How often each pattern would pair an image of a sample with a mask; `start` and `end` are cut from its name."""
    found: Counter[str] = Counter()
    for name in names[:: len(names) // _SAMPLE + 1]:
        shared = name[len(start) : len(name) - len(end)]
        if not shared:
            continue
        # Not a part of a number: the 1 of image 1 is not that of mask 10.
        before, after = (r"(?<!\d)" if shared[0].isdigit() else ""), (r"(?!\d)" if shared[-1].isdigit() else "")
        rule = re.compile(before + re.escape(shared) + after)
        for mask in mask_names:
            if match := rule.search(mask):
                side = f"{_escaped(mask[: match.start()])}{{id}}{_escaped(mask[match.end() :])}"
                found[f"{_escaped(start)}{{id}}{_escaped(end)}={side}"] += 1
    return found


def _escaped(text: str) -> str:
    return re.sub("[{}=]", "*", text)  # characters with a meaning in a pattern


def _affixes(names: Iterable[str]) -> tuple[str, str]:
    """Return what all names share at the start and at the end, without digits, which number the files."""
    names = list(names)
    if len(names) < 2:
        return "", ""
    start = _common_start(names)
    return start, _common_start([name[len(start) :][::-1] for name in names])[::-1]


def _common_start(texts: list[str]) -> str:
    return re.sub(r"\d+$", "", os.path.commonprefix(texts))  # noqa: RUF071, characters are what counts
