"""Finds the base weights of a trained model: where they were, or by their hash in the folders of weights."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from checkpointing.hugging_face import base_file, is_model_folder
from checkpointing.published import weights_folder
from checkpointing.shards import INDEX_SUFFIX, weights_sha256
from checkpointing.tensor_files import SUFFIXES
from utils.errors import UserError

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
    named = named and _file_of(named)
    if named is not None and named.is_file() and weights_sha256(named) == expected:
        return named
    for path in _candidates(named.name if named else ""):
        if _sha256_of(path) == expected:
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


def _sha256_of(candidate: Path) -> str:
    """The hash of a file that may be the base; "" for a damaged one, such as an index whose files are missing."""
    try:
        return weights_sha256(candidate)
    except UserError:
        return ""


def _file_of(named: Path) -> Path:
    """The file behind a folder or a hub name; where there is none, the name itself."""
    try:
        return base_file(named)
    except UserError:
        return named


def _folders() -> list[Path]:
    chosen = os.environ.get(WEIGHTS_VARIABLE)
    return [weights_folder(), *([Path(chosen).expanduser()] if chosen else [])]


def _candidates(name: str) -> Iterator[Path]:
    """The weights files in the folders, and in their subfolders those of transformers.

    Those of this name come first: hashing a large file takes seconds.
    """
    files = [path for folder in _folders() if folder.is_dir() for path in sorted(folder.iterdir())]
    models = [_file_of(path) for path in files if is_model_folder(path)]
    weights = [path for path in [*files, *models] if path.is_file() and _is_weights(path)]
    yield from sorted(weights, key=lambda path: path.name != name)


def _is_weights(path: Path) -> bool:
    return path.suffix in (*SUFFIXES, ".bin") or path.name.endswith(INDEX_SUFFIX)
