"""What the config tests share: configs from text, and the line of a refusal."""

import pytest

from utils.config import load_config
from utils.errors import ConfigError


@pytest.fixture
def data_text():
    """A small data config."""
    return """
data_transforms: {a_min: 0, a_max: 255, img_size: 64}
data:
  root_path: some/where/ROSE
  label_list: [0, 1]
  label_names: [Background, Vein]
"""


@pytest.fixture
def write(tmp_path):
    """Write a config file and return its path."""

    def to_file(text, name="model.yaml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return to_file


@pytest.fixture
def load(write):
    """Load a model config's text, with a data config's text where given."""

    def from_text(model="seed: 0", data=None, **options):
        data_path = None if data is None else write(data, "data.yaml")
        return load_config(write(model), data_path, **options)

    return from_text


@pytest.fixture
def refused(load):
    """Load what must be refused, and return the one line that says why."""

    def because(*args, **options):
        with pytest.raises(ConfigError) as caught:
            load(*args, **options)
        message = str(caught.value)
        assert "\n" not in message
        return message

    return because
