"""The settings of a run: the keys of its config that may tell it apart from other runs of its method."""

from collections.abc import Mapping
from typing import Any

from training.run_folder import RunFolder
from utils.config import Config
from utils.config.differences import flat
from utils.errors import UserError

Settings = Mapping[str, Any]  # such as "training.lr": 0.001

# Runs of one row may differ in these: the seed, places of files, and how a machine computes the same.
_NOT_COMPARED = {
    "seed", "pretrained_path", "prompts.clip_path", "data.root_path", "data.name", "data.data_split_csv",
    "data.fold_num", "data.num_workers", "ft.svd_cache", "sam.num_classes", "training.accumulate_steps",
    "training.gradient_checkpointing", "training.compile", "training.deterministic", "training.cache_embeddings",
    "training.trackers", "evaluation.metrics",
}  # fmt: skip


def read_settings(run: RunFolder, weights: str | None) -> Settings | None:
    """The settings of a run, with the name of its base weights; None for a run without config.yaml.

    Raises: UserError that names the file, if it cannot be used.
    """
    if not run.config.is_file():
        return None
    try:
        text = run.config.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{run.config}: cannot be read ({error})") from error
    keys = flat(Config.from_resolved(text, str(run.config)))  # keys that are newer than the run get their defaults
    return {key: value for key, value in keys.items() if key not in _NOT_COMPARED} | {"base weights": weights}


def differences(several: Mapping[Any, Settings | None]) -> dict[Any, str]:
    """What tells settings apart, as text for each: "lr 1e-2, loss dice"; "" for those that are the same."""
    known = [settings for settings in several.values() if settings is not None]
    names = sorted({name for settings in known for name in settings})
    names = [name for name in names if len({_value_text(settings.get(name)) for settings in known}) > 1]
    ends = [name.rpartition(".")[2] for name in names]
    shown = {name: end if ends.count(end) == 1 else name for name, end in zip(names, ends, strict=True)}

    def text(settings: Settings | None) -> str:
        if settings is None:
            return "settings unknown" if names else ""
        return ", ".join(f"{shown[name]} {_value_text(settings.get(name))}" for name in names)

    return {key: text(settings) for key, settings in several.items()}


def _value_text(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and 0 < abs(value) < 0.1:
        digits, exponent = f"{value:e}".split("e")
        return f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(map(_value_text, value)) if isinstance(value, list) else str(value)
