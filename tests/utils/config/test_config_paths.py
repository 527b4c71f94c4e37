"""Relative paths in configs: from the file that holds them, the working directory, or the project."""

from pathlib import Path

import pytest
import yaml

from utils.config import Config, load_config
from utils.config.differences import check_config
from utils.errors import UserError
from utils.files import PROJECT_ROOT

DATA = "data: {root_path: PATH, label_list: [0, 1], label_names: [Background, Vein]}"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Another working directory than the project's root."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "elsewhere"


def root_of(config_file):
    return load_config(None, config_file).require_data().root_path


def test_a_path_starts_at_its_file_then_at_the_working_directory(elsewhere, write):
    file = write(DATA.replace("PATH", "mine"), "data.yaml")
    assert root_of(file) == Path("mine")  # nowhere: as written
    (elsewhere / "mine").mkdir()
    assert root_of(file) == Path("mine")
    (file.parent / "mine").mkdir()
    assert root_of(file) == file.parent / "mine"
    assert root_of(write(DATA.replace("PATH", "."), "here.yaml")) == file.parent
    assert load_config(None, write(DATA.replace("PATH", "."), "here.yaml")).require_data().data_split_csv == (
        file.parent / "data_split.csv"
    )


def test_the_projects_own_files_are_found_from_anywhere(elsewhere):
    config = load_config(
        Path("configs/model/nano_salt.yaml"), pretrained_path=Path("weights/nano_sam.safetensors"), overrides=["seed=1"]
    )
    assert config.pretrained_path == PROJECT_ROOT / "weights" / "nano_sam.safetensors"


def test_saved_configs_hold_paths_that_do_not_depend_on_the_working_directory(elsewhere, write, monkeypatch):
    (elsewhere / "mine").mkdir()
    data = write(DATA.replace("PATH", "mine"), "data.yaml")
    model = Path("configs/model/nano_salt.yaml")
    config = load_config(model, data, pretrained_path=Path("weights/nano_sam.safetensors"))
    text = config.to_yaml()
    saved = yaml.safe_load(text)
    assert saved["data"]["root_path"] == str(elsewhere / "mine")
    assert saved["pretrained_path"] == "weights/nano_sam.safetensors"
    monkeypatch.chdir(PROJECT_ROOT)
    again = Config.from_yaml(text, "run/model.safetensors")
    assert again.require_data().root_path == elsewhere / "mine"
    assert again.to_yaml() == text


def test_a_run_saved_with_absolute_paths_is_the_same_run(write, monkeypatch):
    """As earlier versions saved them."""
    monkeypatch.chdir(PROJECT_ROOT)
    model = Path("configs/model/nano_salt.yaml")
    config = load_config(model, pretrained_path=Path("weights/nano_sam.safetensors"))
    before = config.to_yaml().replace("weights/nano_sam", f"{PROJECT_ROOT}/weights/nano_sam")
    assert before != config.to_yaml()
    check_config(Path("config.yaml"), before, config, Path("config.yaml"))
    with pytest.raises(UserError, match="pretrained_path was"):
        check_config(Path("config.yaml"), before.replace("nano_sam", "other"), config, Path("config.yaml"))
