"""The split that a run uses. Where the split file has no validation images, a part of the training images are these."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from datasets.split import Row, checked_rows, split_names
from utils.files import csv_text


def run_rows(data_cfg: Any, seed: int) -> list[Row]:
    """Return the rows of a config's split file as a run uses them: with the splits of its fold, and with validation.

    Args:
        data_cfg: a config's `data` section (root_path, data_split_csv, fold_num, val, val_fraction).
        seed: of the draw.

    Raises: as `datasets.split.read_split`.
    """
    rows = checked_rows(data_cfg)
    if data_cfg.val != "val" or any(row.split == "val" for row in rows):
        return rows
    return draw_validation(rows, data_cfg.val_fraction, seed)


def run_split(data_cfg: Any, seed: int) -> dict[str, list[str]]:
    """Return the image names of each split of `run_rows`, in the file's order; a split may be empty."""
    return split_names(run_rows(data_cfg, seed))


def draw_validation(rows: Sequence[Row], fraction: float, seed: int) -> list[Row]:
    """Return the rows with about `fraction` of the training images, at least one, as validation images.

    Groups, such as a patient's images, stay whole. They are taken in a random order, each where it brings the number
    of images closer to the wanted one; if all are too large for that, the smallest is taken. At least one group trains:
    with fewer than two the rows are unchanged. The draw depends on the names and the seed, not on the rows' order.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.split == "train":
            groups.setdefault((row.group, "" if row.group else row.image), []).append(row.image)
    if len(groups) < 2:
        return list(rows)
    names = sorted(groups)
    order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    wanted = max(1.0, fraction * sum(map(len, groups.values())))
    chosen: list[tuple[str, str]] = []
    count = 0
    for name in order:
        size = len(groups[name])
        if abs(count + size - wanted) < abs(count - wanted) and len(chosen) < len(groups) - 1:
            chosen.append(name)
            count += size
    if not chosen:
        chosen = [min(order, key=lambda name: len(groups[name]))]
    images = {image for name in chosen for image in groups[name]}
    return [row._replace(split="val") if row.image in images else row for row in rows]


def split_text(rows: Sequence[Row]) -> str:
    """Return a split file's text with these rows. It has no folds: their splits are those of one fold already."""
    grouped = any(row.group for row in rows)
    lines = [(row.image, row.split, row.group)[: 2 + grouped] for row in rows]
    return csv_text(("imgs", "split", "group")[: 2 + grouped], lines)
