"""Making a data set: `prepare` runs one converter and puts its result in place as a whole, or not at all."""

import inspect
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from datasets import drive, shapes, synthetic
from datasets.sources import open_source
from datasets.writer import SetWriter
from utils.errors import ConfigError, UserError
from utils.files import write_json

# A converter is `convert(source: folder or None, writer, *, seed, and options with defaults) -> {image name: split}`.
Converter = Callable[..., Mapping[str, str]]

CONVERTERS: dict[str, Converter] = {
    "drive": drive.convert,
    "shapes": shapes.convert,
    "synthetic": synthetic.convert,
}


def prepare(
    name: str,
    source: str | Path | None,
    output: str | Path,
    seed: int = 0,
    force: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Make data set `name` in the folder `output`: images/, masks/, data_split.csv and, of its making, dataset.json.

    Args:
        name: one of CONVERTERS.
        source: the official archive or its unpacked folder; None for the sets that are drawn.
        seed: of the random split, and of what is drawn.
        force: replace an existing set at `output`.
        options: the converter's own; None means its default.

    Returns: a summary: name, output, seed, images, splits {split: images}, options and the converter's notes.
    Raises: ConfigError for an unknown name or option; UserError that names the file for anything wrong with source or
        output. Then nothing is left behind, and an existing set is as it was.
    """
    if name not in CONVERTERS:
        raise ConfigError(f"no data set {name!r} to prepare; known: {', '.join(sorted(CONVERTERS))}")
    converter, output = CONVERTERS[name], Path(output)
    chosen = _check_options(name, converter, options)
    _check_output(output, force)
    with _folders_above(output), _in_place_of(output) as folder:
        writer = SetWriter(folder)
        with open_source(Path(source) if source is not None else None, output.parent) as opened:
            splits = writer.finish(converter(opened, writer, seed=seed, **chosen))
        summary = {
            "name": name,
            "output": str(output),
            "seed": seed,
            "images": len(writer.names),
            "splits": splits,
            "options": chosen,
            **writer.notes,
        }
        write_json(folder / "dataset.json", {key: value for key, value in summary.items() if key != "output"})
    return summary


def _check_options(name: str, converter: Converter, options: Mapping[str, Any]) -> dict[str, Any]:
    known = [key for key in inspect.signature(converter).parameters if key not in ("source", "writer", "seed")]
    given = {key: value for key, value in options.items() if value is not None}
    if unknown := sorted(given.keys() - set(known)):
        allowed = ", ".join(f"--{key}" for key in known) or "none"
        raise ConfigError(f"prepare {name} has no option --{unknown[0]}; it has {allowed}")
    return given


def _check_output(output: Path, force: bool) -> None:
    if not os.path.lexists(output):
        return
    if not force:
        raise UserError(f"{output}: exists already; choose another folder, or replace it with --force")
    is_set = (
        output.is_dir() and not output.is_symlink() and ((output / "data_split.csv").is_file() or _is_empty(output))
    )
    if not is_set:
        raise UserError(f"{output}: holds no data_split.csv, so it is no data set that --force may replace; remove it")


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
