"""Base weights as Hugging Face's users have them: a folder of transformers, or a model in the local cache."""

import json
import re
from pathlib import Path
from typing import Any

from checkpointing.tensor_files import SUFFIXES
from utils.errors import UserError

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
# What a folder's weights may be, the first that exists: one file, several with an index, or an old repository's.
_WEIGHTS_NAMES = (WEIGHTS, "model.safetensors.index.json", "pytorch_model.bin")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_model_folder(path: Path) -> bool:
    """Whether a folder is one of transformers; a run's folder has no config.json."""
    return (path / CONFIG).is_file()


def base_file(path: Path) -> Path:
    """The file that `pretrained_path` means: itself, that of a transformers folder, or of a hub name's cached model.

    The network is never asked.

    Raises:
        UserError: a folder without weights; a hub name that the cache does not hold.
    """
    if path.is_dir():
        for name in _WEIGHTS_NAMES:
            if (path / name).is_file():
                return path / name
        raise UserError(f"{path}: holds none of {', '.join(_WEIGHTS_NAMES)}; give a file of weights")
    if path.exists() or not _is_hub_name(path):
        return path
    return _in_cache(path.as_posix())


def _is_hub_name(path: Path) -> bool:
    """Whether a path that does not exist may be a repository such as facebook/sam-vit-base."""
    is_name = _HUB_NAME.fullmatch(path.as_posix()) is not None and path.suffix not in SUFFIXES
    return is_name and not path.parent.exists()


def _in_cache(repository: str) -> Path:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import HFValidationError

    for name in _WEIGHTS_NAMES:
        try:
            found = try_to_load_from_cache(repository, name)
        except HFValidationError:
            raise UserError(f"{repository}: no such file or folder, and no name of a model of Hugging Face") from None
        if isinstance(found, str):
            return Path(found)
    raise UserError(
        f"{repository}: is neither a file or folder nor a model in Hugging Face's cache ({HF_HUB_CACHE}); "
        f'hf download {repository} --include "*.json" "*.safetensors" fetches it'
    )


def check_config(path: Path, expected: dict[str, Any]) -> None:
    """Compares the config.json beside a weights file with what the model needs; keys that it lacks have defaults.

    Args:
        path: the weights file; without a config.json beside it there is nothing to compare.
        expected: sections of numbers that the weights' shapes do not show, as `config.json` has them.

    Raises:
        UserError: names the key that differs, since the same weights would compute something else.
    """
    file = path.with_name(CONFIG)
    if not file.is_file():
        return
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: is not readable as JSON ({error})") from error
    _compare(file, content, expected, "")


def _compare(file: Path, found: Any, expected: dict[str, Any], prefix: str) -> None:
    for key, value in expected.items():
        given = found.get(key) if isinstance(found, dict) else None
        if isinstance(value, dict):
            _compare(file, given, value, f"{prefix}{key}.")
        elif given is not None and given != value:
            raise UserError(f"{file}: {prefix}{key} is {given}, the model of this size has {value}")
