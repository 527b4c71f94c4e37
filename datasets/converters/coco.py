"""A user's images with their areas drawn in COCO files, as CVAT, Label Studio and Roboflow export them."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from datasets.converters.coco_file import fill
from datasets.converters.plan import Case, Pair, Plan, fraction_sizes
from datasets.converters.search import contents_of, files_below
from datasets.io import read_image
from datasets.masks import size_text
from utils.errors import ConfigError, UserError

_KEYS = ("images", "annotations", "categories")
_SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


@dataclass
class _Image:
    """One image of a COCO file.

    Attributes:
        path: of the image file.
        size: (H, W).
        split: that its COCO file is of, by name.
        drawn: label, segmentation, COCO file and id of each annotation.
    """

    path: Path
    size: tuple[int, int]
    split: str | None
    drawn: list[tuple[int, Any, Path, Any]]


def convert(
    source: Path | None,
    *,
    seed: int,
    images: Path | None = None,
    annotations: list[Path] | None = None,
    test_fraction: float = 0.3,
    val_fraction: float = 0.0,
) -> Plan:
    """Fill the polygons and run-length codes of COCO files; each category is a label.

    Where labels overlap, the annotation that comes later in the file counts. An image without annotation gets an empty
    mask. Files or folders named train, val (valid) and test decide the split; without a test file it is drawn.

    Args:
        source: a folder with images and COCO files at any depth. Instead of it:
        images, annotations: the folder of the images, and the COCO files.

    Raises: ConfigError for a bad option; UserError that names the file, and what is missing or wrong in it.
    """
    if (source is None) == (images is None) or (images is None) != (annotations is None):
        raise ConfigError("prepare coco needs --source DIR, or --images DIR and --annotations FILE, and not both")
    root = source or images
    assert root is not None
    files = {path: content for path in annotations or files_below(root, [".json"]) if (content := _read_json(path))}
    if not files:
        where = ", ".join(map(str, annotations)) if annotations else f"{root}, {contents_of(root)}"
        raise UserError(f"no COCO file, a JSON with {', '.join(_KEYS)}, in {where}")
    labels = {name: value for value, name in enumerate(_category_names(files), start=1)}
    found: dict[Path, _Image] = {}
    for path, content in files.items():
        _add_images(found, root, path, content, labels)
    cases = _cases(root, list(found.values()))
    undecided = sum(case.split is None for case in cases)
    lines = [f"{path}: {len(c['images'])} images, {len(c['annotations'])} annotations" for path, c in files.items()]
    return Plan(
        cases,
        fraction_sizes(undecided, test_fraction, val_fraction) if undecided else {},
        {"images_without_annotation": sum(not image.drawn for image in found.values())},
        [*lines, "labels: " + ", ".join(f"{value} {name}" for name, value in labels.items())],
        labels={value: name for name, value in labels.items()},
    )


def _read_json(path: Path) -> dict[str, Any] | None:
    """The content of a COCO file; None for any other JSON. Raises: UserError for a file that is not JSON."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable JSON file ({error})") from error
    if not (isinstance(content, dict) and all(isinstance(content.get(key), list) for key in _KEYS)):
        return None
    return content


def _category_names(files: Mapping[Path, dict[str, Any]]) -> list[str]:
    """The names of the categories that have annotations, by their ids in the first file that has them."""
    names: dict[str, None] = {}
    for path, content in files.items():
        try:
            used = {annotation["category_id"] for annotation in content["annotations"]}
            found = sorted((category["id"], str(category["name"]).strip()) for category in content["categories"])
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}: not a COCO file of images, categories and annotations ({error!r})") from error
        if unknown := used - {number for number, _ in found}:
            raise UserError(f"{path}: annotations of category {min(unknown)}, which is not listed")
        names |= dict.fromkeys(name for number, name in found if number in used)
    if not names:
        raise UserError(f"{next(iter(files))}: no annotations; export the drawn areas as well")
    return list(names)


def _add_images(
    images: dict[Path, _Image], root: Path, path: Path, content: dict[str, Any], labels: dict[str, int]
) -> None:
    split = _split_of(path.relative_to(root) if path.is_relative_to(root) else Path(path.name))
    by_id: dict[Any, _Image] = {}
    try:
        for entry in content["images"]:
            file = _find_image(root, path, str(entry["file_name"]))
            size = (int(entry["height"]), int(entry["width"]))
            if entry["id"] in by_id:
                raise UserError(f"{path}: image {entry['id']} is listed twice")
            by_id[entry["id"]] = images.setdefault(file, _Image(file, size, split, []))
        names = {category["id"]: str(category["name"]).strip() for category in content["categories"]}
        for annotation in content["annotations"]:
            number = annotation["id"]
            if annotation["image_id"] not in by_id:
                image = annotation["image_id"]
                raise UserError(f"{path}: annotation {number} is of image {image}, which is not listed")
            label = labels[names[annotation["category_id"]]]
            by_id[annotation["image_id"]].drawn.append((label, annotation["segmentation"], path, number))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a COCO file of images, categories and annotations ({error!r})") from error


def _split_of(path: Path) -> str | None:
    """The split that a COCO file's own name, or else a folder's, says."""
    for part in reversed(path.with_suffix("").parts):
        for word in re.split(r"[^a-z]+", part.lower()):
            if word in _SPLIT_WORDS:
                return _SPLIT_WORDS[word]
    return None


def _find_image(root: Path, path: Path, name: str) -> Path:
    """The file that a COCO file names: from its own folder or the root, or, by its bare name, anywhere below that."""
    name = name.replace("\\", "/")
    for folder in (root, root / "images", path.parent, path.parent / "images"):
        if (folder / name).is_file():
            return folder / name
    bare = name.rpartition("/")[2].lower()
    found = [file for file in files_below(root, [bare]) if file.name.lower() == bare]
    if len(found) == 1:
        return found[0]
    problem = f"is {len(found)} times below" if found else "is not below"
    raise UserError(f"{path}: lists the image {name}, which {problem} {root}")


def _cases(root: Path, images: Sequence[_Image]) -> list[Case]:
    """A case for each image. The files' own split counts if there is a test split in it.

    Roboflow writes several augmented versions of an image, as NAME_jpg.rf.HASH.jpg: they are one group.
    """
    splits = {image.split for image in images}
    decided = None not in splits and {"train", "test"} <= splits
    stems = [image.path.stem for image in images]
    unique = len({stem.lower() for stem in stems}) == len(stems)
    names = stems if unique else ["_".join(i.path.relative_to(root).with_suffix("").parts) for i in images]
    return [
        Case(name, partial(_read, image), image.split if decided else None, group=_original(image.path.stem))
        for name, image in zip(names, images, strict=True)
    ]


def _original(stem: str) -> str | None:
    """What Roboflow's versions of one image share; None for other names."""
    match = re.fullmatch(r"(.+)\.rf\.[0-9a-fA-F]{8,}", stem)
    return match[1] if match else None


def _read(image: _Image) -> Pair:
    values = read_image(image.path)
    if values.shape[:2] != image.size:
        ours, theirs = size_text(values.shape), size_text(image.size)
        raise UserError(f"{image.path}: {ours} pixels, but its COCO file says {theirs} (width x height)")
    labels = np.zeros(image.size, np.uint8)
    for label, segmentation, path, number in image.drawn:
        labels[fill(segmentation, image.size, path, number)] = label
    return values, labels
