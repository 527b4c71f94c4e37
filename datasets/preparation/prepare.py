"""Making a data set: `prepare` runs one converter and writes the whole set, or nothing."""

import inspect
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets.converters.plan import Plan
from datasets.converters.table import CONVERTERS
from datasets.preparation.data_config import check_values, write_data_config
from datasets.preparation.output import RECORD_FILE, check_output, replacing, reserved
from datasets.preparation.partition import draw_folds, draw_splits
from datasets.preparation.sources import open_sources
from datasets.preparation.writer import write_cases, write_split
from datasets.split import SPLITS
from utils.errors import ConfigError, UserError
from utils.files import write_json


def prepare(
    name: str,
    source: str | Path | Sequence[str | Path] | None,
    output: str | Path,
    seed: int = 0,
    force: bool = False,
    folds: int | None = None,
    dry_run: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Make data set `name` in the folder `output`: images/, masks/, data_split.csv and dataset.json, the summary.

    A user's own data gets data.yaml as well, a data config.

    Args:
        name: one of CONVERTERS.
        source: the official archive, its unpacked folder, or several archives; None for the generated sets.
        seed: of the random split, and of the generated images.
        force: replace an existing set at `output`.
        folds: draw this many folds for cross-validation instead of the converter's split.
        dry_run: only plan; nothing is written.
        options: the converter's own; None means its default.

    Returns: a summary: name, output, seed, images, splits {split: images}, folds (their sizes; only with `folds`),
        options, the converter's notes, longest_side (of the images, in pixels; not with `dry_run`), and `lines` to
        show to the user.
    Raises: ConfigError for an unknown name or option; UserError that names the file if the source or the output cannot
        be used. Then nothing is left behind, and an existing set is unchanged.
    """
    if name not in CONVERTERS:
        raise ConfigError(f"no data set {name!r} to prepare; known: {', '.join(sorted(CONVERTERS))}")
    converter, output = CONVERTERS[name], Path(output)
    if output.name in ("", ".."):  # "." has no name to put other folders beside
        output = Path(os.path.abspath(output))
    chosen = _check_options(name, converter.convert, options)
    for option in ("split", "test_fraction", "val_fraction"):
        if folds is not None and chosen.get(option) is not None:
            raise ConfigError(f"--folds draws its own splits; leave --{option} out")
    sources = [Path(s) for s in ([source] if isinstance(source, str | Path) else source or ())]
    if dry_run:
        with tempfile.TemporaryDirectory() as scratch, open_sources(sources, Path(scratch), converter.digests) as root:
            plan = converter.convert(root, seed=seed, **chosen)
        return _summary(name, output, seed, plan, *_partition(plan, folds, seed), chosen)
    read = [value for option in chosen.values() for value in (option if isinstance(option, list) else [option])]
    inputs = [*sources, *(value for value in read if isinstance(value, Path))]
    with reserved(output):
        check_output(output, force, inputs)
        with replacing(output) as target:
            with open_sources(sources, target.parent, converter.digests) as root:
                plan = converter.convert(root, seed=seed, **chosen)
                splits, by_fold = _partition(plan, folds, seed)
                written = write_cases(target, plan.cases, name)
            if not any(value > 0 for each in written for value in each.values):
                raise UserError(f"{name}: no mask has a labelled pixel; look at the masks, or at --threshold")
            write_split(target, plan.cases, splits, by_fold)
            if plan.labels is not None:
                if not plan.labels:
                    check_values([case.name for case in plan.cases], written)
                write_data_config(target, output, written, splits, plan.labels)
            summary = _summary(name, output, seed, plan, splits, by_fold, chosen)
            summary["longest_side"] = max(max(each.size) for each in written)
            recorded = {key: value for key, value in summary.items() if key not in ("output", "lines")}
            write_json(target / RECORD_FILE, recorded)
    return summary


def _partition(plan: Plan, folds: int | None, seed: int) -> tuple[dict[str, str], dict[str, int] | None]:
    """Return the split of every image and, for cross-validation, the folds; the splits are then those of fold 0."""
    if folds is None:
        return draw_splits(plan.cases, plan.split_sizes, seed), None
    validation = [case for case in plan.cases if case.split == "val"]  # they stay that in every run
    by_fold = draw_folds([case for case in plan.cases if case.split != "val"], folds, seed)
    splits = {name: "train" if fold else "test" for name, fold in by_fold.items()}
    return splits | {case.name: "val" for case in validation}, by_fold


def _summary(
    name: str,
    output: Path,
    seed: int,
    plan: Plan,
    splits: Mapping[str, str],
    by_fold: Mapping[str, int] | None,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    number, sizes = Counter(splits.values()), Counter((by_fold or {}).values())
    return {
        "name": name,
        "output": str(output),
        "seed": seed,
        "images": len(plan.cases),
        "splits": {split: number[split] for split in SPLITS},
        **({"folds": [sizes[fold] for fold in sorted(sizes)]} if by_fold else {}),
        "options": {key: _plain(value) for key, value in options.items()},
        **plan.notes,
        "lines": list(plan.lines),
    }


def _plain(option: Any) -> Any:
    """An option's value as JSON has it."""
    if isinstance(option, list):
        return [_plain(value) for value in option]
    return str(option) if isinstance(option, Path) else option


def _check_options(name: str, convert: Callable[..., Plan], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that are not None. Raises: ConfigError for one that the converter does not take."""
    known = [key for key in inspect.signature(convert).parameters if key not in ("source", "seed")]
    given = {key: value for key, value in options.items() if value is not None}
    if unknown := sorted(given.keys() - set(known)):
        allowed = ", ".join(f"--{key}" for key in known) or "none"
        raise ConfigError(f"prepare {name} has no option --{unknown[0]}; it has {allowed}")
    return given
