"""Settings of the transforms for tests."""

from typing import Any

from utils.config.schema import DataTransformsConfig

SWITCHES = [name for name in DataTransformsConfig.model_fields if name.startswith("use_")]
EVERYTHING = dict.fromkeys(SWITCHES, True)


def transform_settings(**changes: Any) -> DataTransformsConfig:
    """A config's `data_transforms` section at its defaults but for `changes`, which may be sizes no config allows."""
    assert set(changes) <= set(DataTransformsConfig.model_fields)
    return DataTransformsConfig().model_copy(update=changes)
