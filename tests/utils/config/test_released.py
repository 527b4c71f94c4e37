"""The released configuration file as it is: its quirks are read as they are meant, with one warning line each."""

import pytest

# Keys, values and repetitions as in the released SALT_config.yml.
RELEASED = """
sam:
  img_size: 512
  num_classes: 2
  sam_type: "base"
img_type: 'image'
arch: "Prompt Adapted SAM 2"
use_fdn: False
decoder_training: 'none'
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
  schedular:
  steps: [7000, 15000]
  decay_factor: 0.1
  schedule_step_factor: 0.2
  weight_decay: 1e-2
  loss: 'focal+dice'
  reg_multiplier: 0
decoder_training: 'none'
use_salt: True
ft:
  type: 'salt'
  svd_rank_linear: 0
  svd_rank_conv2d: 0
  r_lora: 4
Hiera:
  embed_dim: 112
Hiera:
  embed_dim: 96
"""


def test_the_released_file_loads_with_a_line_for_each_matter(load, warned):
    config = load(RELEASED)
    assert (config.decoder_training, config.sam.sam_type, config.training.schedular) == (False, "base_plus", "step")
    assert (config.ft.svd_ratio, config.training.warmup_steps, config.strategy) == (0.1, 1000, "salt")
    matters = [line.partition("model.yaml:")[2].strip() for line in warned()]
    assert matters == [
        "33: key 'decoder_training' is given twice, with one value; remove one",
        "decoder_training = 'none' means false",
        "training.schedular is empty, so it is step",
        "sam.sam_type = 'base' means 'base_plus'",
        "svd ranks of 0 are not set: ft.svd_ratio decides for Prompt Adapted SAM 2",
        "Hiera is accepted and has no effect",
        "prompts.LOCATION is accepted and has no effect",
        "prompts.DROPOUT is accepted and has no effect",
        "prompts.NUM_TOKENS is accepted and has no effect",
    ]


def test_a_key_with_two_values_is_an_error_unless_it_has_no_effect(load, refused, warned):
    message = refused("decoder_training: true\nseed: 1\ndecoder_training: false\n")
    assert message.endswith("model.yaml:3: key 'decoder_training' is given twice, with two values; keep one")
    assert load("Hiera: {a: 1}\nHiera: {a: 2}").Hiera is None
    warned()
    assert load("training:\n  lr: 1e-3\n  lr: 0.001\n").training.lr == 1e-3
    assert warned()[0].endswith("model.yaml:3: key 'lr' is given twice, with one value; remove one")


@pytest.mark.parametrize("value", ["none", "None", "'none'"])
def test_none_is_false(load, value):
    assert load(f"decoder_training: {value}").decoder_training is False


def test_base_and_ranks_of_0_stay_where_they_are_meant(load, warned, refused):
    config = load("sam: {sam_type: base}\nft: {svd_rank_linear: 0, svd_rank_conv2d: 0}")
    assert (config.sam.sam_type, config.ft.svd_rank_linear, config.ft.svd_ratio) == ("base", 0, None)
    assert warned() == []
    assert "decoder_training = 'all'" in refused("decoder_training: all")


@pytest.mark.slow
@pytest.mark.parametrize("size", ["base", "nano"])
def test_the_released_file_trains(workspace, size, warned):
    from main import main

    path = workspace.folder / "SALT_config.yml"
    path.write_text(RELEASED)
    workspace.model_config = path
    text = workspace.data_config.read_text().replace("use_rotation", "img_size: 64, use_rotation")
    workspace.data_config.write_text(text)
    short = ["sam.img_size=64", "sam.weights=random", "prompts.text_encoder=learned", "training.num_epochs=1"]
    more = ["--set", *short, *([] if size == "base" else ["sam.sam_type=nano", "ft.svd_ratio=0.2"])]
    assert main(workspace.train_arguments("run/model.safetensors", *more)) == 0
    assert (workspace.folder / "run" / "results.json").is_file()
    assert "training.warmup_steps = 1000, but all epochs have 1 steps" in warned()
