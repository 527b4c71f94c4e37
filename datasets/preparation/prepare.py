"""Making a data set: `prepare` runs one converter and puts its result in place as a whole, or not at all."""

import inspect
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets.converters import arcade, chase_db1, dias, drive, folder, rose, shapes, stare, synthetic, xray_angio
from datasets.converters.plan import Plan
from datasets.preparation.partition import draw_folds, draw_splits
from datasets.preparation.sources import open_sources
from datasets.preparation.writer import write_cases, write_split
from datasets.split import SPLITS
from utils.errors import ConfigError, UserError
from utils.files import write_json


@dataclass(frozen=True)
class Converter:
    """One kind of data set.

    Attributes:
        convert: `convert(source: folder or None, *, seed, and options with defaults) -> Plan`.
        digests: of the official archives, {file name: "sha256:..." or "md5:..."}.
    """

    convert: Callable[..., Plan]
    digests: Mapping[str, str] = field(default_factory=dict)


CONVERTERS: dict[str, Converter] = {
    "arcade": Converter(arcade.convert, arcade.DIGESTS),
    "chase_db1": Converter(chase_db1.convert),
    "dias": Converter(dias.convert, dias.DIGESTS),
    "drive": Converter(drive.convert, drive.DIGESTS),
    "folder": Converter(folder.convert),
    "rose": Converter(rose.convert),
    "shapes": Converter(shapes.convert),
    "stare": Converter(stare.convert),
    "synthetic": Converter(synthetic.convert),
    "xray_angio": Converter(xray_angio.convert, xray_angio.DIGESTS),
}


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
    """Make data set `name` in the folder `output`: images/, masks/, data_split.csv and, of its making, dataset.json.

    Args:
        name: one of CONVERTERS.
        source: the official archive, its unpacked folder, or several archives; None for the sets that are drawn.
        seed: of the random split, and of what is drawn.
        force: replace an existing set at `output`.
        folds: draw so many folds for cross-validation, in place of the converter's split.
        dry_run: only plan; nothing is written.
        options: the converter's own; None means its default.

    Returns: a summary: name, output, seed, images, splits {split: images}, folds (the sizes; only with `folds`),
        options, the converter's notes, and `lines` that it wants shown.
    Raises: ConfigError for an unknown name or option; UserError that names the file for anything wrong with source or
        output. Then nothing is left behind, and an existing set is as it was.
    """
    if name not in CONVERTERS:
        raise ConfigError(f"no data set {name!r} to prepare; known: {', '.join(sorted(CONVERTERS))}")
    converter, output = CONVERTERS[name], Path(output)
    chosen = _check_options(name, converter.convert, options)
    if folds is not None and chosen.get("split"):
        raise ConfigError("--folds draws its own splits; leave --split out")
    sources = [Path(s) for s in ([source] if isinstance(source, str | Path) else source or ())]
    if dry_run:
        with tempfile.TemporaryDirectory() as scratch, open_sources(sources, Path(scratch), converter.digests) as root:
            plan = converter.convert(root, seed=seed, **chosen)
        return _summary(name, output, seed, plan, *_partition(plan, folds, seed), chosen)
    _check_output(output, force, [*sources, *(value for value in chosen.values() if isinstance(value, Path))])
    with _folders_above(output), _in_place_of(output) as target:
        with open_sources(sources, output.parent, converter.digests) as root:
            plan = converter.convert(root, seed=seed, **chosen)
            splits, by_fold = _partition(plan, folds, seed)
            write_cases(target, plan.cases, name)
        write_split(target, plan.cases, splits, by_fold)
        summary = _summary(name, output, seed, plan, splits, by_fold, chosen)
        write_json(target / "dataset.json", {k: v for k, v in summary.items() if k not in ("output", "lines")})
    return summary


def _partition(plan: Plan, folds: int | None, seed: int) -> tuple[dict[str, str], dict[str, int] | None]:
    """The split of every image and, for a cross-validation, its fold; the splits are then those of fold 0."""
    if folds is None:
        return draw_splits(plan.cases, plan.draw, seed), None
    by_fold = draw_folds(plan.cases, folds, seed)
    return {name: "train" if fold else "test" for name, fold in by_fold.items()}, by_fold


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
        "options": {key: str(value) if isinstance(value, Path) else value for key, value in options.items()},
        **plan.notes,
        "lines": list(plan.lines),
    }


def _check_options(name: str, convert: Callable[..., Plan], options: Mapping[str, Any]) -> dict[str, Any]:
    known = [key for key in inspect.signature(convert).parameters if key not in ("source", "seed")]
    given = {key: value for key, value in options.items() if value is not None}
    if unknown := sorted(given.keys() - set(known)):
        allowed = ", ".join(f"--{key}" for key in known) or "none"
        raise ConfigError(f"prepare {name} has no option --{unknown[0]}; it has {allowed}")
    return given


def _check_output(output: Path, force: bool, sources: Sequence[Path]) -> None:
    """Refuse what exists, unless it is a set that may be replaced, and that holds none of the sources."""
    if not os.path.lexists(output):
        return
    if not force:
        raise UserError(f"{output}: exists already; choose another folder, or replace it with --force")
    is_set = (
        output.is_dir() and not output.is_symlink() and ((output / "data_split.csv").is_file() or _is_empty(output))
    )
    if not is_set:
        raise UserError(f"{output}: holds no data_split.csv, so it is no data set that --force may replace; remove it")
    for source in sources:
        if source.resolve().is_relative_to(output.resolve()):
            raise UserError(f"{source}: lies in {output}, which --force would remove; choose another --output")


def _is_empty(folder: Path) -> bool:
    return not any(folder.iterdir())


@contextmanager
def _folders_above(output: Path) -> Iterator[None]:
    """Make the folders above `output`; if the block fails, remove those that weren't there."""
    missing = [folder for folder in output.parents if not folder.exists()]  # the innermost first
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{output}: its folder can't be made ({error.strerror}); choose another") from error
    try:
        yield
    except BaseException:
        for folder in missing:
            with suppress(OSError):  # something else has put a file there meanwhile
                folder.rmdir()
        raise


@contextmanager
def _in_place_of(output: Path) -> Iterator[Path]:
    """Yield a folder beside `output` that takes its place if the block succeeds and is removed if it doesn't."""
    scratch = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        folder, former = scratch / "new", scratch / "former"
        folder.mkdir()
        yield folder
        if output.exists():
            os.rename(output, former)
        try:
            os.rename(folder, output)
        except OSError:
            if former.exists():
                os.rename(former, output)
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
