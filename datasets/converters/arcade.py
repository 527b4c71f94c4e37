"""ARCADE, syntax task: coronary arteries in X-ray angiograms, drawn as polygons in COCO files."""

import json
from functools import partial
from pathlib import Path
from typing import NamedTuple

from datasets.converters.coco_file import Polygon, fill_polygons, polygons_of
from datasets.converters.plan import Case, Pair, Plan
from datasets.converters.search import find_in_source, match_files, natural
from datasets.io import read_image
from datasets.masks import size_text
from utils.errors import UserError

DIGESTS = {"arcade.zip": "sha256:a396cdea7c92c55dc97bbf3dd8e3df517d76872b289a8bcb45513bdb3350837f"}

_SPLIT_SIZES = {"train": 700, "test": 300}
_STENOSIS = 26  # the one category that is no vessel segment
_OFFICIAL = ("train", "val", "test")


def convert(source: Path | None, *, seed: int, split: str = "paper") -> Plan:
    """Fill the vessel polygons of syntax/. The folder stenosis/ is ignored: its polygons are not vessels.

    A mask is the union of all polygons of an image, except those of category 26, stenosis. pycocotools fills them, so
    the pixels at an outline are those of COCO's own tools. An image without a vessel gets an empty mask; the summary
    counts such images. File names begin with the folder (train_1.png), because each folder numbers its images from 1.

    Args:
        split: `paper`: 700 train and 300 test, drawn from the 1000 images of syntax/train, and the 200 of syntax/val,
            where it is there. `official`: the 1000, 200 and 300 images of train, val and test.

    Raises: UserError that names the missing file or the invalid annotation.
    """
    root = find_in_source(source, "syntax/train/annotations").parents[1]
    parts: dict[str, str | None] = {part: part for part in _OFFICIAL}
    if split == "paper":
        parts = {"train": None} | ({"val": "val"} if (root / "val").is_dir() else {})
    cases, bare = [], 0
    for part, of_part in parts.items():
        found, without = _cases(root, part, of_part)
        cases += found
        bare += without
    return Plan(cases, _SPLIT_SIZES if split == "paper" else {}, {"images_without_annotation": bare})


def _cases(root: Path, part: str, split: str | None) -> tuple[list[Case], int]:
    """Return the cases of a folder, and how many of them have no vessel annotation."""
    path = root / part / "annotations" / f"{part}.json"
    files = match_files(root / part / "images", r"(.+\.png)")
    drawn = _read_drawings(path)
    if missing := sorted(drawn.keys() - files.keys(), key=natural):
        raise UserError(f"{root / part / 'images' / missing[0]}: missing; {path.name} lists it")
    if unknown := sorted(files.keys() - drawn.keys(), key=natural):
        raise UserError(f"{files[unknown[0]]}: {path.name} does not list it, so its vessels are unknown")
    names = sorted(files, key=natural)
    cases = [Case(f"{part}_{files[n].stem}", partial(_read, files[n], drawn[n], path), split) for n in names]
    return cases, sum(not drawn[name].polygons for name in names)


class _Drawing(NamedTuple):
    """The vessels of one image: polygons, and the size (H, W) they were drawn at."""

    polygons: list[Polygon]
    size: tuple[int, int]


def _read(image: Path, drawing: _Drawing, annotations: Path) -> Pair:
    values = read_image(image)
    if values.shape[:2] != drawing.size:
        ours, theirs = size_text(values.shape), size_text(drawing.size)
        raise UserError(f"{image}: {ours} pixels, but {annotations.name} says {theirs} (width x height)")
    return values, fill_polygons(drawing.polygons, drawing.size)


def _read_drawings(path: Path) -> dict[str, _Drawing]:
    """Return the drawing of every image that a COCO file lists, by the image's file name."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        listed = content["images"]
        drawings = {image["id"]: _Drawing([], (image["height"], image["width"])) for image in listed}
        by_name = {Path(image["file_name"]).name: drawings[image["id"]] for image in listed}
        if not len(by_name) == len(drawings) == len(listed):
            raise UserError(f"{path}: an image is listed twice")
        skipped = {_STENOSIS} | {c["id"] for c in content["categories"] if str(c["name"]).lower() == "stenosis"}
        for annotation in content["annotations"]:
            image = annotation["image_id"]
            if image not in drawings:
                raise UserError(f"{path}: annotation {annotation['id']} is of image {image}, which is not listed")
            if annotation["category_id"] not in skipped:
                drawings[image].polygons.extend(polygons_of(annotation["segmentation"], path, annotation["id"]))
    except FileNotFoundError:
        raise UserError(f"{path}: missing; the set is incomplete") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a COCO file of images, categories and annotations ({error!r})") from error
    return by_name
