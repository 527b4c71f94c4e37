"""log.txt: what a run says on the console, kept in its folder."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STDOUT, _STDERR = 1, 2


@contextmanager
def kept_in(path: Path) -> Iterator[None]:
    """Context manager: what is logged, and the error that ends the block, is also appended to the file `path`."""
    if _is_file(_STDERR, path):  # a sweep's run: its console is this file
        yield
        return
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.setLevel(logging.INFO)
    logging.getLogger().addHandler(handler)
    try:
        yield
    except Exception as error:
        append_output(path, f"error: {error}\n")
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


def append_output(path: Path, text: str) -> None:
    """Appends what was printed to the file `path`; does nothing where standard output is that file."""
    if not _is_file(_STDOUT, path):
        with path.open("a", encoding="utf-8") as file:
            file.write(text)


def _is_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False
