"""Published configs, the configs that the project ships, and a resolved config read back."""

from pathlib import Path

import pytest
import yaml

from utils.config import Config, load_config
from utils.errors import ConfigError

ROOT = Path(__file__).parents[3]
PLANS = ("sweep", "sweep_released", "miniature", "nano")  # of several runs: their own tests load them
FOLDERS = [ROOT / "configs" / name for name in ("model", "baseline", "table1", "table1/beyond", "ablation")]
SHIPPED = [path for folder in FOLDERS for path in sorted(folder.glob("*.yaml")) if path.stem not in PLANS]

# Every key of the published files, with values of the kinds that users of the released code have in theirs.
PUBLISHED_DATA = """
data_transforms:
  a_min: 0
  a_max: 255
  img_size: 512
  use_random_crop: False
  use_rotation: True
  rotation_angle: 10
  use_saturation: False
  saturation: 2
  use_brightness: False
  brightness: 2
  use_horizontal_flip: True
  use_random_scale: False
data:
  root_path: '/path/to/ROSE'
  data_split_csv: '/path/to/ROSE/data_split.csv'
  fold_num: 0
  label_list: [0, 1]
  label_names: ["Background", "Vein"]
  volume_channel: 2
  negative_to_positive_ratio: -1
model: {}
"""
PUBLISHED_MODEL = """
sam:
  img_size: 512
  num_classes: 2
  sam_type: "base"
img_type: 'image'
arch: "Prompt Adapted SAM"
use_fdn: False
decoder_training: False
mlp_transform: False
prompts:
  USE_TEXT_PROMPT: True
  NUM_TEXT_REPEAT: 1
  USE_IMAGE_PROMPT: False
  USE_SLICE_NUM: False
  LOCATION: 'prepend'
  DROPOUT: 0
  NUM_TOKENS: 5
training:
  optimizer: 'adamw'
  lr: 1e-4
  batch_size: 8
  num_epochs: 200
  schedule_step: 100
  warmup_steps: 1000
  schedular: 'step'
  steps: [7000, 15000]
  decay_factor: 0.1
  schedule_step_factor: 0.2
  weight_decay: 1e-2
  loss: 'focal+dice'
  reg_multiplier: 0
use_salt: True
ft:
  type: 'svd'
  svd_rank_linear: 0
  svd_rank_conv2d: 0
  r_lora: 4
Hiera: {}
"""


def test_the_published_files_load_with_a_line_for_each_key_without_effect(load, warned):
    config = load(PUBLISHED_MODEL, PUBLISHED_DATA, strategy="lora")
    assert (config.strategy, config.ft.type, config.ft.r_lora, config.training.lr) == ("lora", "lora", 4, 1e-4)
    lines = warned()
    unused = ["model", "Hiera", "prompts.LOCATION", "prompts.DROPOUT", "prompts.NUM_TOKENS", "data.volume_channel"]
    assert [line.split(": ", 1)[1] for line in lines[:6]] == [f"{key} is accepted and has no effect" for key in unused]
    assert ["ft.type svd is ignored" in lines[6], "use_salt" in lines[7], len(lines)] == [True, True, 8]
    assert (config.model, config.Hiera, config.prompts.LOCATION, config.require_data().volume_channel) == (None,) * 4


def keys_of(text):
    sections = yaml.safe_load(text)
    nested = {(name, key) for name, section in sections.items() if isinstance(section, dict) for key in section}
    return set(sections) | nested


@pytest.mark.parametrize(
    ("published", "name"), [(PUBLISHED_DATA, "config_data.yaml"), (PUBLISHED_MODEL, "SALT_config.yaml")]
)
def test_the_shipped_published_files_hold_every_published_key(published, name):
    assert keys_of(published) <= keys_of((ROOT / "configs" / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("strategy", ["salt", "lora"])
def test_the_readme_commands_load_the_shipped_files(strategy):
    config = load_config(ROOT / "configs/SALT_config.yaml", ROOT / "configs/config_data.yaml", strategy=strategy)
    assert (config.strategy, config.ft.type, config.require_data().name) == (strategy, strategy, "ROSE")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_model_config_loads_quietly(path, warned):
    assert isinstance(load_config(path), Config)
    assert warned() == []


def test_pretraining_follows_the_data_configs_size(write, data_text):
    assert load_config(ROOT / "configs/model/nano_pretrain.yaml", write(data_text)).sam.img_size == 64


def test_the_control_of_the_detail_head_has_its_settings():
    model, control = (
        load_config(ROOT / "configs" / name, None)
        for name in ("model/nano_sam2_detail.yaml", "baseline/detail_head.yaml")
    )
    salts_own = {"reg_multiplier": 0.01}  # the control has no SALT to regularize
    assert model.training.model_dump() | salts_own == control.training.model_dump() | salts_own
    assert model.data_transforms == control.data_transforms
    assert model.sam.img_size == control.sam.img_size


def test_nano_salt_has_a_size_of_its_own_for_data_configs_without_one():
    config = load_config(ROOT / "configs/model/nano_salt.yaml", ROOT / "configs/data/drive.yaml")
    assert (config.sam.img_size, config.data_transforms.img_size) == (256, 256)


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": "salt"},
        {"strategy": "full", "seed": 7, "pretrained_path": Path("weights/sam.pth")},
        {"overrides": ["profile=released", "training.lr=1e-5", "training.clip_grad_norm=1"]},
        {"overrides": ["ft.rank_pattern={neck.*: {r_lora: 8}}", "ft.targets=[blocks.*.attn.qkv]"]},
        {"overrides": ["data.label_names=['1e-4', 'null']", "data.name='yes'"]},
    ],
)
def test_a_resolved_config_alone_gives_the_same_config_without_a_word(load, write, warned, options):
    config = load(PUBLISHED_MODEL.replace("use_salt: True", ""), PUBLISHED_DATA, **options)
    warned()
    assert load_config(write(config.to_yaml(), "config.yaml")) == config
    assert Config.from_yaml(config.to_yaml(), "checkpoint") == config
    assert warned() == []


def test_a_resolved_config_says_what_was_left_to_defaults(load):
    resolved = yaml.safe_load(load("seed: 0").to_yaml())
    assert (resolved["profile"], resolved["strategy"], resolved["ft"]["type"]) == ("official", "salt", "salt")
    assert (resolved["training"]["momentum"], resolved["sam"]["img_size"]) == (0.9, 512)


def test_a_resolved_config_can_be_changed_from_the_command_line(load, write):
    resolved = write(load(PUBLISHED_MODEL, PUBLISHED_DATA).to_yaml(), "config.yaml")
    config = load_config(resolved, strategy="lora", overrides=["training.num_epochs=1"])
    assert (config.strategy, config.ft.type, config.training.num_epochs) == ("lora", "lora", 1)


def test_from_yaml_names_its_origin():
    with pytest.raises(ConfigError, match=r"^w\.safetensors: unknown key sed; did you mean seed\?$"):
        Config.from_yaml("sed: 1", "w.safetensors")


def test_a_loaded_config_cannot_be_changed(load):
    config = load()
    with pytest.raises(ValueError, match="frozen"):
        config.training.lr = 1.0
