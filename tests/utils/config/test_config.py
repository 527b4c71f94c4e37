"""Keys, types, ranges and defaults: what a config holds and what is refused, with which line."""

from pathlib import Path

import pytest

from utils.config import load_config
from utils.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("trainig: {lr: 1}", "unknown key trainig; did you mean training?"),
        ("training: {scheduler: step}", "unknown key training.scheduler; did you mean training.schedular?"),
        ("lr: 1", "unknown key lr; did you mean training.lr?"),
        ("sam: {batchsize: 1}", "unknown key sam.batchsize; did you mean training.batch_size?"),
        ("ft: {rank_pattern: {a: {svd_rnk: 1}}}", "unknown key ft.rank_pattern.a.svd_rnk; did you mean ft.rank_patt"),
        ("sam: {zzz: 1}", "unknown key sam.zzz; known keys here: img_size, num_classes, sam_type, "),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(refused, text, hint):
    assert f"model.yaml: {hint}" in refused(text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("training: {lr: 0}", "training.lr = 0: must be greater than 0"),
        ("training: {lr: .inf}", "training.lr = inf: must be a finite number"),
        ("training: {lr: fast}", "training.lr = 'fast': must be a valid number"),
        ("training: {batch_size: 2.5}", "training.batch_size = 2.5: must be a valid integer"),
        ("training: {batch_size: true}", "training.batch_size = true: must be a valid integer"),
        ("training: {optimizer: adam}", "training.optimizer = 'adam': must be 'adamw' or 'sgd'"),
        ("training: {steps: [3, x]}", "training.steps[1] = 'x': must be a valid integer"),
        ("training: {steps: [3, 2]}", "training.steps = [3, 2]: must list epochs in rising order"),
        ("training: {schedular: multistep}", "training.steps = []: must list at least one epoch"),
        ("training: {loss: focal+dise}", "training.loss = 'focal+dise': must join some of focal, dice, bce"),
        ("training: {loss: ''}", "training.loss = '': must join some of focal, dice, bce"),
        ("training: {loss: dice+dice}", "training.loss = 'dice+dice': must join some of focal, dice, bce"),
        ("training: {focal_on: sigmoid}", "training.focal_on = 'sigmoid': must be 'logits' or 'probabilities'"),
        ("training: {focal_alpha: 1.5}", "training.focal_alpha = 1.5: must be less than or equal to 1"),
        ("training: {focal_gamma: 0.5}", "training.focal_gamma = 0.5: must be 0 or at least 1"),
        ("training: {focal_gamma: .nan}", "training.focal_gamma = nan: must be"),
        ("training: {precision: fp8}", "training.precision = 'fp8': must be 'fp32', 'bf16' or 'fp16'"),
        ("training: {accumulate_steps: 0}", "training.accumulate_steps = 0: must be greater than or equal to 1"),
        ("training: {batch_size: 4, accumulate_steps: 3}", "training.accumulate_steps = 3: must divide batch_size = 4"),
        ("training: {ema_decay: 1}", "training.ema_decay = 1: must be less than 1"),
        ("training: {ema_decay: 0}", "training.ema_decay = 0: must be greater than 0"),
        ("training: {gradient_checkpointing: 1}", "training.gradient_checkpointing = 1: must be"),
        ("training: {compile: 1}", "training.compile = 1: must be"),
        ("training: {deterministic: 1}", "training.deterministic = 1: must be"),
        ("training: {sync_batch_norm: 1}", "training.sync_batch_norm = 1: must be"),
        ("training: 5", "training = 5: must be a section of `key: value` lines"),
        ("sam: {img_size: 100}", "sam.img_size = 100: must be a multiple of 16"),
        ("sam: {img_size: 0}", "sam.img_size = 0: must be greater than 0"),
        ("ft: {svd_rank_linear: -1}", "ft.svd_rank_linear = -1: must be greater than or equal to 0"),
        ("ft: {rank_pattern: {neck: {}}}", "ft.rank_pattern.neck = {}: must set svd_rank, r_lora or both"),
        ("ft: {targets: []}", "ft.targets = []: must have at least 1 item"),
        ("seed: -1", "seed = -1: must be greater than or equal to 0"),
        (
            "data: {root_path: a, label_names: [a, b], fold_num: -1}",
            "data.fold_num = -1: must be greater than or equal",
        ),
        ("pretrained_path: ''", "pretrained_path = '': must be a path, not an empty text"),
        ("data_transforms: {a_min: 5, a_max: 5}", "data_transforms.a_max = 5: must be greater than a_min = 5"),
        ("data_transforms: {random_scale: [2, 1]}", "data_transforms.random_scale = [2, 1]: must be [smallest, larg"),
        (
            "arch: Prompt Adapted SAM3",
            "arch = 'Prompt Adapted SAM3': must be 'Prompt Adapted SAM', 'Prompt Ada",
        ),
    ],
)
def test_a_value_out_of_type_or_range_is_refused_with_what_is_allowed(refused, text, complaint):
    assert f"model.yaml: {complaint}" in refused(text)


@pytest.mark.parametrize(
    "text",
    [
        "mlp_transform: true",
        "use_fdn: true",
        "img_type: video",
        "prompts: {USE_TEXT_PROMPT: false}",
        "prompts: {USE_IMAGE_PROMPT: true}",
        "prompts: {USE_SLICE_NUM: true}",
    ],
)
def test_a_value_that_asks_for_something_not_built_is_refused(refused, text):
    assert "asks for something that is not built" in refused(text)


def test_several_complaints_are_one_line_that_counts_them(refused):
    message = refused("training: {lr: 0, batch_size: 0, lrr: 1}")
    assert "unknown key training.lrr" in message
    assert message.endswith("(and 2 more)")


def test_name_and_split_follow_root_path(load, data_text):
    data = load(data=data_text).require_data()
    assert (data.name, data.data_split_csv) == ("ROSE", Path("some/where/ROSE/data_split.csv"))


def test_name_and_split_stay_as_set(load, data_text):
    data = load(data=data_text + "  name: mine\n  data_split_csv: other.csv\n").require_data()
    assert (data.name, data.data_split_csv) == ("mine", Path("other.csv"))


def test_a_home_folder_is_expanded(load):
    data = load(overrides=["data={root_path: ~/ROSE, label_names: [a, b]}"]).require_data()
    assert data.root_path == Path.home() / "ROSE"
    assert data.data_split_csv == Path.home() / "ROSE" / "data_split.csv"


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("label_names=[a]", "data.label_names = ['a']: must hold one name for each of the 2 labels"),
        ("label_names=[a, a]", "data.label_names = ['a', 'a']: must not repeat a name"),
        ("label_list=[1, 1]", "data.label_list = [1, 1]: must not repeat a label"),
        ("label_list=[0]", "data.label_list = [0]: must have at least 2 items"),
        ("label_list=[0, -1]", "data.label_list[1] = -1: must be greater than or equal to 0"),
        ("val=all", "data.val = 'all': must be 'train', 'val' or 'test'"),
    ],
)
def test_labels_and_val_are_checked(refused, override, complaint, data_text):
    assert f"--set: {complaint}" in refused(data=data_text, overrides=[f"data.{override}"])


def test_root_path_cannot_be_left_out(refused):
    assert "data.yaml: data.root_path is missing" in refused(data="data: {label_names: [a, b]}")


def test_without_data_only_what_needs_it_complains(load):
    config = load()
    assert config.data is None
    with pytest.raises(ConfigError, match="give --data_config"):
        config.require_data()


def test_a_data_config_loads_alone(write, data_text):
    assert load_config(None, write(data_text)).require_data().label_names == ["Background", "Vein"]


def test_num_classes_follows_the_labels(load, warned, data_text):
    data = data_text.replace("[0, 1]", "[0, 1, 2]").replace("Vein", "Vein, Artery")
    assert load(data=data).sam.num_classes == 3
    assert warned() == []
    load("sam: {num_classes: 2}", data)
    assert ["sam.num_classes = 2 has no effect" in line for line in warned()] == [True]
