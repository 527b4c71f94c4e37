"""Writing an output folder as a whole or not at all, and replacing only what `prepare` has written."""

import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from datasets.preparation.data_config import DATA_CONFIG
from datasets.split import SPLIT_FILE, read_rows
from utils.errors import UserError
from utils.lock import locked

log = logging.getLogger(__name__)

RECORD_FILE = "dataset.json"
# What belongs to a set besides its images and masks; `check` writes the last one.
_OWN_FILES = {SPLIT_FILE, RECORD_FILE, DATA_CONFIG, "contact_sheet.png"}
_NEW, _FORMER = "new", "former"


def check_output(output: Path, force: bool, sources: Sequence[Path]) -> None:
    """Raise UserError unless `output` may be written.

    An existing folder needs `force`, and must be a data set that `prepare` made, to which nothing was added, and in
    which no source lies.
    """
    if not os.path.lexists(output):
        return
    if not force:
        raise UserError(f"{output}: exists already; choose another folder, or replace it with --force")
    if output.is_dir() and not output.is_symlink() and _is_empty(output):
        return
    for name in (SPLIT_FILE, RECORD_FILE):
        if output.is_symlink() or not (output / name).is_file():
            raise UserError(f"{output}: not a data set (no {name}), so --force does not replace it; remove it")
    for source in sources:
        if source.resolve().is_relative_to(output.resolve()):
            raise UserError(f"{source}: lies in {output}, which --force would remove; choose another --output")
    _refuse_additions(output)


def _refuse_additions(output: Path) -> None:
    images = {row.image for row in read_rows(output / SPLIT_FILE)}
    own = _OWN_FILES | {f"{folder}/{name}" for folder in ("images", "masks", "fov") for name in images}
    for path in sorted(output.rglob("*")):
        name = path.relative_to(output).as_posix()
        if name not in own and (path.is_symlink() or not path.is_dir()):
            raise UserError(f"{path}: is not of the data set, and --force would remove it; move it elsewhere")


def _is_empty(folder: Path) -> bool:
    return not any(folder.iterdir())


@contextmanager
def reserved(output: Path) -> Iterator[None]:
    """Context manager: no other process prepares `output`. What a killed one left is cleaned up first.

    The folders above `output` are created, and removed again if they are empty at the end.

    Raises: UserError if another process prepares it, or the folders cannot be created.
    """
    busy = f"{output}: another process prepares it; wait for it, or choose another folder"
    with ExitStack() as held:
        try:
            held.enter_context(locked(output.with_name(f".{output.name}.lock"), busy))
        except OSError as error:
            raise UserError(f"{output}: its folder cannot be created ({error.strerror}); choose another") from error
        _clean_up(output)
        yield


def _scratch(output: Path) -> Path:
    return output.with_name(f".{output.name}.prepare")


def _clean_up(output: Path) -> None:
    scratch = _scratch(output)
    if not scratch.exists():
        return
    former = scratch / _FORMER
    if former.exists() and not os.path.lexists(output):
        os.rename(former, output)
        log.warning("%s: is back; a prepare that was killed had moved it to %s", output, former)
    shutil.rmtree(scratch)
    log.warning("%s: removed; a prepare that was killed had left it", scratch)


@contextmanager
def replacing(output: Path) -> Iterator[Path]:
    """Yield a new folder beside `output`. It becomes `output` if the block succeeds and is removed if it fails.

    `output` must be `reserved`. The folder that holds the new one is for files of the meantime.
    """
    scratch = _scratch(output)
    scratch.mkdir()
    try:
        folder = scratch / _NEW
        folder.mkdir()
        yield folder
        _swap(folder, output, scratch / _FORMER)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _swap(folder: Path, output: Path, former: Path) -> None:
    """Move `output` to `former` and `folder` to `output`; if that fails, `output` is as it was."""
    if output.exists():
        os.rename(output, former)
    try:
        os.rename(folder, output)
    except BaseException:
        if former.exists():
            os.rename(former, output)
        raise
