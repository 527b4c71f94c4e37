"""Runs docs/python.md from top to bottom and draws its pictures: `python -m benchmarks.python_page`."""

import logging
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

from utils.files import PROJECT_ROOT

PAGE, PICTURES = PROJECT_ROOT / "docs" / "python.md", PROJECT_ROOT / "docs" / "pictures"
_BLOCK = re.compile(r"```(bash|python)\n(.*?)```", re.DOTALL)


def run_page(text: str) -> dict[str, Any]:
    """Runs the bash and Python blocks of a page in the working directory; returns the names that Python has then.

    Bash blocks are lines of `python main.py`, which run in this process.

    Raises: RuntimeError for a command that fails.
    """
    import matplotlib

    matplotlib.use("Agg")
    names: dict[str, Any] = {}
    for kind, code in _BLOCK.findall(text):
        if kind == "python":
            exec(compile(code, str(PAGE), "exec"), names)
            continue
        for arguments in _commands(code):
            from main import main

            if main(arguments):
                raise RuntimeError(f"{PAGE}: failed: {shlex.join(arguments)}")
    return names


def _commands(code: str) -> Iterator[list[str]]:
    for line in code.replace("\\\n", "").splitlines():
        yield shlex.split(line, comments=True)[2:]


def main() -> None:
    """Runs the page in a temporary folder and puts its pictures into docs/pictures."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        run_page(PAGE.read_text(encoding="utf-8"))
        for picture in Path("example").glob("*.png"):
            shutil.copy(picture, PICTURES / picture.name)
            print(f"{PICTURES / picture.name}: {os.path.getsize(picture) // 1000} kB")


if __name__ == "__main__":
    main()
