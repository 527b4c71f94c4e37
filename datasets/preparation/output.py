"""Writing an output folder as a whole or not at all, and replacing only what is a data set."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from utils.errors import UserError


def check_output(output: Path, force: bool, sources: Sequence[Path]) -> None:
    """Raise UserError unless `output` may be written.

    An existing folder needs `force`, and must be a data set in which no source lies.
    """
    if not os.path.lexists(output):
        return
    if not force:
        raise UserError(f"{output}: exists already; choose another folder, or replace it with --force")
    is_set = output.is_dir() and not output.is_symlink()
    if not is_set or not ((output / "data_split.csv").is_file() or _is_empty(output)):
        raise UserError(f"{output}: not a data set (no data_split.csv), so --force does not replace it; remove it")
    for source in sources:
        if source.resolve().is_relative_to(output.resolve()):
            raise UserError(f"{source}: lies in {output}, which --force would remove; choose another --output")


def _is_empty(folder: Path) -> bool:
    return not any(folder.iterdir())


@contextmanager
def replacing(output: Path) -> Iterator[Path]:
    """Yield a new folder beside `output`. It becomes `output` if the block succeeds and is removed if it fails.

    The folders above `output` are created, and removed again if the block fails.

    Raises: UserError if they cannot be created.
    """
    created = [folder for folder in output.parents if not folder.exists()]  # the innermost first
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{output}: its folder cannot be created ({error.strerror}); choose another") from error
    scratch = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        folder = scratch / "new"
        folder.mkdir()
        yield folder
        _swap(folder, output, scratch / "former")
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        for parent in created:
            with suppress(OSError):  # another program has written there in the meantime
                parent.rmdir()
        raise
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
