"""Finds the base weights of a trained model: where they were, or by their hash in the folders of weights."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from checkpointing.published import weights_folder
from checkpointing.tensor_files import SUFFIXES
from utils.errors import UserError
from utils.files import sha256

log = logging.getLogger(__name__)

WEIGHTS_VARIABLE = "SALT_WEIGHTS"


def find_base(checkpoint: Path, named: Path | None, expected: str) -> Path:
    """The base weights of a checkpoint.

    Args:
        checkpoint: the weights file, for errors.
        named: where they were in training.
        expected: their SHA-256.

    Raises:
        UserError: no file there, in the project's weights/ or in $SALT_WEIGHTS has this hash.
    """
    if named is not None and named.is_file() and sha256(named) == expected:
        return named
    for path in _candidates(named.name if named else ""):
        if sha256(path) == expected:
            log.info("%s: the base weights are %s", checkpoint, path)
            return path
    searched = " or ".join(str(folder) for folder in _folders())
    if named is not None and named.is_file():
        raise UserError(
            f"{checkpoint}: was trained on other base weights than {named}: their sha256 is {expected[:12]}..., and no "
            f"file in {searched} has it; give --pretrained_path"
        )
    raise UserError(
        f"{checkpoint}: needs its base weights {named}, which do not exist; no file in {searched} has their sha256 "
        f"{expected[:12]}...; give --pretrained_path"
    )


def _folders() -> list[Path]:
    chosen = os.environ.get(WEIGHTS_VARIABLE)
    return [weights_folder(), *([Path(chosen).expanduser()] if chosen else [])]


def _candidates(name: str) -> Iterator[Path]:
    """The weights files in the folders, those of this name first: hashing a large file takes seconds."""
    files = [path for folder in _folders() if folder.is_dir() for path in sorted(folder.iterdir())]
    weights = [path for path in files if path.suffix in SUFFIXES and path.is_file()]
    yield from sorted(weights, key=lambda path: path.name != name)
