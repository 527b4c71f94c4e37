"""The differences between a run's config and another one."""

from pathlib import Path
from typing import Any

from utils.config.config import Config
from utils.config.sources import dotted, parse_yaml, show
from utils.errors import UserError
from utils.files import portable_path


def check_config(origin: Path, saved: str, config: Config, config_file: Path) -> None:
    """Raises UserError, with the keys that differ, unless `saved` (YAML, found in `origin`) is `config`.

    `config_file` is the resolved config that repeats the run.
    """
    before, now = (_flat(parse_yaml(text, str(origin))) for text in (saved, config.to_yaml()))
    keys = sorted({key for key in before | now if not _same(before.get(key), now.get(key))})
    if keys:
        changes = [f"{key} was {_word(before.get(key))}, is {_word(now.get(key))}" for key in keys]
        raise UserError(f"{origin}: was trained with another config: {'; '.join(changes)}; resume with {config_file}")


def _flat(values: dict[str, Any], path: tuple[str, ...] = ()) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        inner = (*path, key)
        flat.update(_flat(value, inner) if isinstance(value, dict) else {dotted(inner): value})
    return flat


def _same(before: Any, now: Any) -> bool:
    """Whether two values are equal, as paths too: older runs stored absolute ones."""
    texts = isinstance(before, str) and isinstance(now, str)
    return before == now or (texts and portable_path(Path(before)) == portable_path(Path(now)))


def _word(value: Any) -> str:
    return "not set" if value is None else show(value)
