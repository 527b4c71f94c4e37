"""The differences between a run's config and another one."""

from pathlib import Path
from typing import Any

from utils.config.config import Config
from utils.config.sources import dotted, show
from utils.errors import UserError
from utils.files import portable_path

# They say when training ends. A run may go on with more epochs, and then with any patience.
EPOCHS, PATIENCE = "training.num_epochs", "training.patience"
# They change nothing that a run computes.
_FREE = {"training.trackers"}


def check_config(origin: Path, saved: str, config: Config, config_file: Path, longer: bool = False) -> bool:
    """Raises UserError, with the keys that differ, unless `saved` (YAML, found in `origin`) is `config`.

    Args:
        config_file: the resolved config that repeats the run.
        longer: accept a `config` with more epochs.

    Returns: whether `config` has more epochs.
    """
    before = flat(Config.from_resolved(saved, str(origin)))  # keys that are newer than the run get their defaults
    now = flat(config)
    keys = sorted({key for key in before | now if not _same(before.get(key), now.get(key))} - _FREE)
    more = longer and now[EPOCHS] > before[EPOCHS]
    if more:
        keys = [key for key in keys if key not in (EPOCHS, PATIENCE)]
    if keys:
        changes = [f"{key} was {_word(before.get(key))}, is {_word(now.get(key))}" for key in keys]
        raise UserError(f"{origin}: was trained with another config: {'; '.join(changes)}; resume with {config_file}")
    return more


def flat(config: Config) -> dict[str, Any]:
    """The keys that are set, as users write them ("training.lr"), and their values."""
    return _flattened(config.model_dump(mode="json", exclude_none=True))


def _flattened(values: dict[str, Any], path: tuple[str, ...] = ()) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        inner = (*path, key)
        flat.update(_flattened(value, inner) if isinstance(value, dict) else {dotted(inner): value})
    return flat


def _same(before: Any, now: Any) -> bool:
    """Whether two values are equal, as paths too: older runs stored absolute ones."""
    texts = isinstance(before, str) and isinstance(now, str)
    return before == now or (texts and portable_path(Path(before)) == portable_path(Path(now)))


def _word(value: Any) -> str:
    return "not set" if value is None else show(value)
