"""Pairing images with masks by a pattern over the stems of their file names."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.errors import ConfigError, UserError

_PLACEHOLDER = re.compile(r"(\{[a-z]+\}|\*)")
_NAMES = ("id", "group")
_COMMON_PATTERNS = ("{id}={id}", "{id}={id}_mask")


@dataclass(frozen=True)
class Pairing:
    """The pairs of image and mask, the group of each image that has one, and the unpaired files."""

    pattern: str
    pairs: Sequence[tuple[Path, Path]]
    groups: Mapping[Path, str]
    unpaired_images: Sequence[Path]
    unpaired_masks: Sequence[Path]


def pair_by(pattern: str, images: Mapping[str, Path], masks: Mapping[str, Path]) -> Pairing:
    """Pair files by the pattern `IMAGE=MASK`, whose two sides match whole stems.

    {id} stands for the text that both stems share, {group} for the patient, and * for any text:
    `{id}_training={id}_manual1` pairs 21_training with 21_manual1. A pattern without = is the mask's side, and the
    image's side is then {id}: `{id}_manual1` pairs 21 with 21_manual1. Placeholders of the mask's side must match the
    same text on both sides. Where images and masks share a folder, a file that matches both sides is a mask.

    Args:
        images, masks: files by stem, in the order of the pairs.

    Raises: ConfigError for an invalid pattern; UserError that names the files if two images or two masks match alike.
    """
    image_side, equals, mask_side = pattern.partition("=")
    if not equals:
        image_side, mask_side = "{id}", pattern
    image_rule, mask_rule = (_compile(side, pattern) for side in (image_side, mask_side))
    if missing := set(mask_rule.groupindex) - set(image_rule.groupindex):
        raise ConfigError(f"--pattern {pattern}: {{{missing.pop()}}} is missing on the image's side")
    shared = sorted(mask_rule.groupindex)
    mask_of: dict[tuple[str, ...], Path] = {}
    for stem, path in masks.items():
        if match := mask_rule.fullmatch(stem):
            _add(mask_of, match.group(*shared, 0)[:-1], path, pattern)
    taken = set(mask_of.values())
    image_of: dict[tuple[str, ...], Path] = {}
    groups: dict[Path, str] = {}
    for stem, path in images.items():
        if path not in taken and (match := image_rule.fullmatch(stem)):
            _add(image_of, match.group(*shared, 0)[:-1], path, pattern)
            if "group" in image_rule.groupindex:
                groups[path] = match["group"]
    pairs = [(path, mask_of[key]) for key, path in image_of.items() if key in mask_of]
    paired = {path for pair in pairs for path in pair}
    no_masks = set(images.values()) - taken
    unpaired_masks = [path for path in masks.values() if path not in paired and path not in no_masks]
    unpaired_images = [path for path in images.values() if path not in paired and path not in taken]
    return Pairing(pattern, pairs, groups, unpaired_images, unpaired_masks)


def propose(images: Mapping[str, Path], masks: Mapping[str, Path]) -> Pairing:
    """Return the pairing by the pattern, among likely ones, that pairs the most files; it may pair none.

    The candidates are equal stems, stems with _mask, and stems without the text that all images share, and all masks
    share, at the end, or at both ends.
    """
    (start, end), (mask_start, mask_end) = _affixes(images), _affixes(masks)
    candidates = [
        *_COMMON_PATTERNS,
        f"{{id}}{end}={{id}}{mask_end}",
        f"{start}{{id}}{end}={mask_start}{{id}}{mask_end}",
    ]
    pairings = []
    for pattern in candidates:
        try:
            pairings.append(pair_by(pattern, images, masks))
        except UserError:  # two files match alike
            continue
    return max(pairings, key=lambda pairing: len(pairing.pairs), default=Pairing(_COMMON_PATTERNS[0], [], {}, [], []))


def _compile(side: str, pattern: str) -> re.Pattern[str]:
    pieces = []
    for piece in _PLACEHOLDER.split(side):
        if piece == "*":
            pieces.append(".*?")
        elif _PLACEHOLDER.fullmatch(piece):
            if piece[1:-1] not in _NAMES or f"(?P<{piece[1:-1]}>" in "".join(pieces):
                raise ConfigError(f"--pattern {pattern}: {piece} is unknown or used twice; use {{id}}, {{group}}, *")
            pieces.append(f"(?P<{piece[1:-1]}>.+?)")
        else:
            pieces.append(re.escape(piece))
    rule = re.compile("".join(pieces), re.DOTALL)
    if "id" not in rule.groupindex:
        raise ConfigError(f"--pattern {pattern}: needs {{id}} on each side, as in {{id}}_image={{id}}_mask")
    return rule


def _add(found: dict[tuple[str, ...], Path], key: tuple[str, ...], path: Path, pattern: str) -> None:
    if key in found:
        raise UserError(
            f"{path}: the pattern {pattern} does not tell it from {found[key].name}; give another --pattern"
        )
    found[key] = path


def _affixes(stems: Iterable[str]) -> tuple[str, str]:
    """Return what all stems share at the start and at the end, without digits, which number the files."""
    stems = list(stems)
    if len(stems) < 2:
        return "", ""
    start = _common_start(stems)
    end = _common_start([stem[len(start) :][::-1] for stem in stems])[::-1]
    return re.sub("[{}=]", "*", start), re.sub("[{}=]", "*", end)  # characters with a meaning in a pattern


def _common_start(texts: list[str]) -> str:
    return re.sub(r"\d+$", "", os.path.commonprefix(texts))  # noqa: RUF071, characters are what counts
