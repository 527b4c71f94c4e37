"""The dataset card: a summary of a data set on one screen."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datasets.checks.examine import Facts
from datasets.masks import size_text
from datasets.split import SPLITS, Row

_TITLE_WIDTH = 14
_SHOWN = 6


def card_lines(data: Any, rows: Sequence[Row], facts: Sequence[Facts]) -> list[str]:
    """Return the card of a set: splits, folds, sizes, bit depths, stored mask values, and each label's share.

    Args:
        data: a config's `data` section.
        rows: of the split file, with the splits of the fold in use.
        facts: of every image.
    """
    lines = [f"{Path(data.root_path)}: {len(facts)} images"]
    lines.append(_line("splits", _listed([f"{n} {s}" for s, n in _counted([row.split for row in rows], SPLITS)])))
    if any(row.fold for row in rows):
        folds = _counted([row.fold for row in rows if row.fold])
        groups = len({row.group for row in rows if row.group})
        fold_sizes = ", ".join(f"{number}" for _, number in sorted(folds, key=lambda fold: (len(fold[0]), fold[0])))
        tested = getattr(data, "fold_num", 0)
        grouped = f", {groups} groups" if groups else ""
        lines.append(_line("folds", f"{len(folds)} of {fold_sizes} images{grouped}; fold {tested} is tested"))
    sizes = [size_text(one.size) for one in facts if one.size]
    lines.append(_line("sizes", _listed([f"{n} of {s}" for s, n in _counted(sizes)]) + " (width x height)"))
    lines.append(_line("bit depths", _listed([f"{n} {d}" for d, n in _counted([f.depth for f in facts if f.depth])])))
    values = Counter(value for one in facts for value in one.values)
    masks = sum(bool(one.values) for one in facts)
    listed = [str(v) if n == masks else f"{v} (in {n} of {masks})" for v, n in sorted(values.items())]
    lines.append(_line("mask values", _listed(listed)))
    lines += [_line(label, _share(label, facts)) for label in data.label_names[1:]]
    return lines


def _share(label: str, facts: Sequence[Facts]) -> str:
    """Describe in how many masks a label occurs, and the share of those images that it covers."""
    covered = sorted((one.shares[label], one.name) for one in facts if label in one.shares)
    if not covered:
        return "in no mask"
    (least, where), (most, there) = covered[0], covered[-1]
    mean = np.mean([share for share, _ in covered])
    return f"in {len(covered)} masks, {mean:.1%} of the pixels; {least:.1%} ({where}) to {most:.1%} ({there})"


def _counted(values: Sequence[str], order: Sequence[str] = ()) -> list[tuple[str, int]]:
    """Return each value with its count, in the given order or the most frequent first."""
    number = Counter(values)
    return [(value, number[value]) for value in order if number[value]] if order else number.most_common()


def _listed(texts: Sequence[str]) -> str:
    more = f", and {len(texts) - _SHOWN} others" if len(texts) > _SHOWN else ""
    return (", ".join(texts[:_SHOWN]) + more) or "none"


def _line(title: str, text: str) -> str:
    return f"  {title + ' ':<{_TITLE_WIDTH}}{text}"
