"""Pairing images with masks by a pattern over the names of their files."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.errors import ConfigError, UserError

_PLACEHOLDER = re.compile(r"(\{[a-z]+\}|\*)")
_NAMES = ("id", "group")


@dataclass(frozen=True)
class Pairing:
    """The pairs of image and mask, the group of each image that has one, and the unpaired files.

    `others` are the pairings with other masks of the same images, where a proposal found some (a second observer's).
    """

    pattern: str
    pairs: Sequence[tuple[Path, Path]]
    groups: Mapping[Path, str]
    unpaired_images: Sequence[Path]
    unpaired_masks: Sequence[Path]
    others: Sequence["Pairing"] = ()


def pair_by(pattern: str, images: Mapping[str, Path], masks: Mapping[str, Path]) -> Pairing:
    """Pair files by the pattern `IMAGE=MASK`, whose two sides match whole names.

    {id} stands for the text that both names share, {group} for the patient, and * for any text:
    `{id}_training={id}_manual1` pairs 21_training with 21_manual1. A pattern without = is the mask's side, and the
    image's side is then {id}: `{id}_manual1` pairs 21 with 21_manual1. Placeholders of the mask's side must match the
    same text on both sides. Where images and masks share a folder, a file that matches both sides is a mask.

    A name is that of the file. If the pattern holds a /, or if two files in different folders have one name, it is
    the path from the folder of images or masks: `{group}/{id}_image={group}/{id}_mask`.

    Args:
        images, masks: files by path from their folder, as from `images_below`, in the order of the pairs.

    Raises: ConfigError for an invalid pattern; UserError that names the files if two images or two masks match alike.
    """
    image_side, equals, mask_side = pattern.partition("=")
    if not equals:
        image_side, mask_side = "{id}", pattern
    image_rule, mask_rule = (_compile(side, pattern) for side in (image_side, mask_side))
    if missing := set(mask_rule.groupindex) - set(image_rule.groupindex):
        raise ConfigError(f"--pattern {pattern}: {{{missing.pop()}}} is missing on the image's side")
    shared = sorted(mask_rule.groupindex)
    by_path = "/" in pattern or not (_distinct(images) and _distinct(masks))
    mask_of: dict[tuple[str, ...], Path] = {}
    for key, path in masks.items():
        if match := mask_rule.fullmatch(key if by_path else file_name(key)):
            _add(mask_of, match.group(*shared, 0)[:-1], path, pattern)
    taken = set(mask_of.values())
    image_of: dict[tuple[str, ...], Path] = {}
    groups: dict[Path, str] = {}
    for key, path in images.items():
        if path not in taken and (match := image_rule.fullmatch(key if by_path else file_name(key))):
            _add(image_of, match.group(*shared, 0)[:-1], path, pattern)
            if "group" in image_rule.groupindex:
                groups[path] = match["group"]
    pairs = [(path, mask_of[texts]) for texts, path in image_of.items() if texts in mask_of]
    paired = {path for pair in pairs for path in pair}
    no_masks = set(images.values()) - taken
    unpaired_masks = [path for path in masks.values() if path not in paired and path not in no_masks]
    unpaired_images = [path for path in images.values() if path not in paired and path not in taken]
    return Pairing(pattern, pairs, groups, unpaired_images, unpaired_masks)


def file_name(key: str) -> str:
    """Return the last part of a path that `images_below` made."""
    return key.rpartition("/")[2]


def _distinct(files: Mapping[str, Path]) -> bool:
    return len({file_name(key) for key in files}) == len(files)


def _compile(side: str, pattern: str) -> re.Pattern[str]:
    if "}{" in side or "{group}*" in side:
        raise ConfigError(f"--pattern {pattern}: put text between the placeholders; nothing says where the first ends")
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
