"""Finds the weights file that a user means by a path: a file, or the folder of a run."""

import difflib
import zipfile
from pathlib import Path

from checkpointing.hugging_face import base_file, is_model_folder
from checkpointing.tensor_files import SUFFIXES
from training.run_folder import RunFolder
from utils.errors import UserError


def weights_of(path: Path) -> Path:
    """A weights file: `path` itself, or the final weights of the run in the folder `path`, else its best epoch's.

    Raises: UserError that says what a folder, or the folder of a file that is not there, holds instead.
    """
    if path.is_file() and (path.suffix in SUFFIXES or zipfile.is_zipfile(path)):  # torch.save writes zip archives
        return path
    if path.is_file():
        raise UserError(
            f"{path}: is no file of weights, which end in {', '.join(SUFFIXES)}; {_weights_in(path.parent)}"
        )
    if path.is_dir():
        folder = RunFolder(path)
        owner = folder.owner.read_text(encoding="utf-8").strip() if folder.owner.is_file() else ""
        final = [path / owner] if owner else []
        beside = path.resolve().parent / owner
        if owner and RunFolder.of(beside).path == path.resolve():  # the second run of a folder
            final.append(beside)
        for weights in (*final, folder.best_weights):
            if weights.is_file():
                return weights
        raise UserError(f"{path}: is a folder without a run's weights; {_weights_in(path)}")
    folder_there = next(parent for parent in path.absolute().parents if parent.is_dir())
    near = difflib.get_close_matches(path.name, [other.name for other in folder_there.iterdir()], n=1)
    if near and folder_there == path.absolute().parent:
        raise UserError(f"{path}: no such file of weights; did you mean {path.with_name(near[0])}?")
    raise UserError(f"{path}: no such file of weights; {_weights_in(path.parent)}")


def base_of(path: Path) -> Path:
    """What a config keeps of the base weights that a user names: of a run's folder its weights, else `path`.

    Raises: UserError for a path that holds no weights, and is no hub name with files in the local cache.
    """
    if path.is_file():
        return path
    if path.is_dir() and not is_model_folder(path):
        return weights_of(path)
    base_file(path)  # which raises early; the config keeps the folder or the hub name
    return path


def run_of(weights: Path) -> RunFolder | None:
    """The folder of the run whose final weights or best epoch a file is; None where that cannot be told."""
    beside = RunFolder(weights.parent)
    folder = beside if weights.name == beside.best_weights.name else RunFolder.of(weights)
    return folder if folder.owner.is_file() else None


def _weights_in(folder: Path) -> str:
    """Words that name the weights files in a folder and one level below it."""
    found = sorted(p for level in ("*", "*/*") for p in folder.glob(level) if p.suffix in SUFFIXES and p.is_file())
    if not found:
        return f"{folder} holds none" if folder.is_dir() else f"there is no folder {folder} either"
    return f"there are {', '.join(str(p) for p in found[:3])}" + (" and others" if len(found) > 3 else "")
