"""Reading and merging: YAML files, `--set` overrides, and the place that each error names."""

from pathlib import Path

import pytest

from utils.config import load_config
from utils.errors import ConfigError


def test_defaults_are_the_papers_settings(load):
    config = load()
    training, ft = config.training, config.ft
    assert (training.optimizer, training.lr, training.weight_decay, training.batch_size) == ("adamw", 1e-4, 1e-2, 5)
    assert (training.num_epochs, training.schedular, training.loss) == (200, "step", "focal+dice")
    assert (training.reg_multiplier, training.focal_on) == (0.01, "logits")
    assert (ft.svd_rank_linear, ft.svd_rank_conv2d, ft.r_lora, ft.salt_init) == (500, 250, 4, "identity")
    assert (config.strategy, config.sam.sam_type, config.sam.img_size, config.seed) == ("salt", "base", 512, 0)
    assert config.data_transforms.pixel_std == [58.395, 57.12, 57.375]


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("1E-4", 1e-4), ("5e-05", 5e-5), ("1.e-3", 1e-3), (".5e-3", 5e-4), ("2", 2.0), ("1e+1", 10.0)],
)
def test_a_number_with_an_exponent_is_a_number(load, text, value):
    assert load(f"training: {{lr: {text}}}").training.lr == value


def test_a_quoted_number_is_text(refused):
    assert "training.lr = '1e-4': must be a valid number" in refused("training: {lr: '1e-4'}")


def test_a_key_written_twice_is_refused_with_its_line(refused, write):
    message = refused("training:\n  lr: 1e-4\n  lr: 1e-3\n")
    assert message == f"{write('x').with_name('model.yaml')}:3: key 'lr' is given twice, with two values; keep one"


def test_a_syntax_error_names_file_and_line(refused):
    assert "model.yaml:3: " in refused("sam: {img_size: 64}\ntraining:\n  lr: a: b\n")


@pytest.mark.parametrize("text", ["", "- 1\n- 2", "just text"])
def test_a_file_that_is_no_mapping_is_refused(refused, text):
    assert refused(text).endswith("model.yaml: is not a YAML mapping of `key: value` lines")


def test_a_key_that_is_not_text_is_refused(refused):
    assert "model.yaml:2: key 7 is not text" in refused("seed: 1\n7: 1")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read \(No such file or directory\)"):
        load_config(tmp_path / "nowhere.yaml")


def test_a_file_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "model.yaml"
    path.write_bytes(b"seed: \xff\xfe")
    with pytest.raises(ConfigError, match=r"model\.yaml: is not UTF-8 text"):
        load_config(path)


def test_yaml_tags_cannot_build_objects(refused):
    assert "model.yaml:1: " in refused("seed: !!python/tuple [1]")


def test_no_file_at_all_is_refused():
    with pytest.raises(ConfigError, match="--model_config"):
        load_config(None)


def test_a_section_may_be_spread_over_both_files(load, data_text):
    config = load("training: {lr: 1e-3}\nseed: 3", data_text + "\ntraining: {batch_size: 2}\nseed: 3")
    assert (config.training.lr, config.training.batch_size, config.seed) == (1e-3, 2, 3)


def test_two_values_for_one_key_are_refused_with_both_files(refused, data_text):
    message = refused("training: {lr: 1e-3}", data_text + "\ntraining: {lr: 1e-4}")
    assert "model.yaml: training.lr = 0.001, but " in message
    assert "data.yaml says 0.0001" in message


def test_null_is_the_same_as_leaving_a_key_out(load, data_text):
    config = load(
        "training: {lr: null, batch_size: 3}\nft:\nseed: null", data_text + "\nseed: 4\ntraining: {batch_size: null}"
    )
    assert (config.training.lr, config.training.batch_size, config.seed) == (1e-4, 3, 4)


def test_overrides_beat_both_files_and_the_last_one_wins(load, data_text):
    overrides = ["training.lr=1e-3", "ft.svd_rank_linear=100", "ft.svd_rank_linear=200", "training.steps=[2, 4]"]
    config = load(
        "training: {lr: 1e-2, batch_size: 2}", data_text, overrides=[*overrides, "data.root_path=else/where/DRIVE"]
    )
    assert (config.training.lr, config.training.batch_size, config.training.steps) == (1e-3, 2, [2, 4])
    assert (config.ft.svd_rank_linear, config.require_data().name) == (200, "DRIVE")


def test_an_override_of_null_puts_the_default_back(load):
    config = load("training: {lr: 1e-2, batch_size: 2}", overrides=["training.lr=null"])
    assert (config.training.lr, config.training.batch_size) == (1e-4, 2)


def test_an_override_of_a_section_replaces_it_and_answers_for_it(load, refused):
    assert load("training: {batch_size: 2}", overrides=["training={lr: 1}"]).training.batch_size == 5
    message = refused("training: {lr: 1}", overrides=["training={lr: 0}"])
    assert message == "--set: training.lr = 0: must be greater than 0"


def test_an_override_can_hold_a_pattern_with_dots(load):
    config = load(overrides=['ft.rank_pattern={"neck.*": {r_lora: 8}}'])
    assert config.ft.rank_pattern["neck.*"].r_lora == 8
    assert config.ft.rank_pattern["neck.*"].svd_rank is None


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("training.lr", "--set training.lr: write it as section.key=value"),
        ("=3", "--set =3: write it as section.key=value"),
        ("training..lr=3", "--set training..lr=3: write it as section.key=value"),
        ("training.steps=[1", "--set training.steps=[1: "),
        ("training.lr.x=1", "--set training.lr.x: training.lr is a value, not a section"),
        ("training.lrr=1", "--set: unknown key training.lrr; did you mean training.lr?"),
        ("training.lr=-1", "--set: training.lr = -1: must be greater than 0"),
    ],
)
def test_overrides_are_checked_the_same_way(refused, override, complaint):
    assert refused("training: {lr: 1}", overrides=[override]).startswith(complaint)


def test_command_line_options_beat_the_file(load):
    config = load("seed: 1\npretrained_path: a.pth", seed=2, pretrained_path=Path("b.pth"))
    assert (config.seed, config.pretrained_path) == (2, Path("b.pth"))
    assert load("seed: 1\npretrained_path: a.pth").pretrained_path == Path("a.pth")
    assert load("seed: 1", seed=0).seed == 0


def test_a_bad_option_is_refused_by_its_name(refused):
    assert refused(strategy="slat").startswith("--training_strategy: strategy = 'slat': must be 'salt', 'svd', ")
