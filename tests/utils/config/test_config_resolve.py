"""Rules over several sections: one image size, profiles, strategy against ft.type, keys without effect."""

from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("model", "data", "size"),
    [
        ("sam: {img_size: null}", "data_transforms: {img_size: 64}", 64),
        ("sam: {img_size: 128}", "data_transforms: {use_rotation: true}", 128),
        ("sam: {img_size: 64}", "data_transforms: {img_size: 64}", 64),
        ("seed: 0", "seed: 0", 512),
    ],
)
def test_there_is_one_image_size(load, model, data, size):
    config = load(model, data)
    assert (config.sam.img_size, config.data_transforms.img_size) == (size, size)


def test_two_image_sizes_are_refused_with_both_names(refused, data_text):
    message = refused("sam: {img_size: 512}", data_text)
    assert "model.yaml: sam.img_size = 512, but " in message
    assert "data.yaml: data_transforms.img_size = 64" in message


def options_of(config):
    return (
        config.sam.encoder_attention,
        config.sam.pos_embed_resize,
        config.training.focal_on,
        config.training.reg_multiplier,
        config.ft.salt_init,
        config.prompts.text_affine_norm,
        config.data_transforms.pixel_std,
    )


OFFICIAL = ("official", "bicubic", "logits", 0.01, "identity", "layernorm", [58.395, 57.12, 57.375])
RELEASED = ("released", "avg_pool", "probabilities", 0.0, "normal", "batchnorm", [53.395, 57.12, 57.375])


def test_the_profile_sets_the_defaults_of_its_options(load):
    assert options_of(load("profile: official")) == options_of(load()) == OFFICIAL
    assert options_of(load("profile: released")) == options_of(load(overrides=["profile=released"])) == RELEASED


def test_an_option_set_on_its_own_stays_whatever_the_profile(load, warned):
    config = load("profile: released\nsam: {encoder_attention: official}\ntraining: {reg_multiplier: 0.5}")
    assert options_of(config) == ("official", "avg_pool", "probabilities", 0.5, *RELEASED[4:])
    assert warned() == []


def test_a_profile_from_the_command_line_names_the_options_it_leaves(load, warned):
    load("sam: {encoder_attention: official, pos_embed_resize: avg_pool}", overrides=["profile=released"])
    (line,) = warned()
    assert "sam.encoder_attention = 'official' overrides profile released" in line


def test_random_weights_with_a_checkpoint_are_refused(refused):
    message = refused("sam: {weights: random}", pretrained_path=Path("sam.pth"))
    assert "sam.weights = random, but pretrained_path = sam.pth (--pretrained_path)" in message


def test_a_clip_path_without_clip_is_named(load, warned):
    load("prompts: {text_encoder: learned, clip_path: clip.pt}")
    assert ["prompts.clip_path has no effect" in line for line in warned()] == [True]


TYPE_OF = {
    "salt": "salt",
    "svd": "svd",
    "svdbiastuning": "svd",
    "lora": "lora",
    "biastuning": None,
    "decoder": None,
    "full": None,
    "none": None,
}


@pytest.mark.parametrize(("strategy", "ft_type"), TYPE_OF.items())
def test_the_type_follows_the_strategy(load, warned, strategy, ft_type):
    for config in (load(f"strategy: {strategy}"), load(strategy=strategy), load(overrides=[f"strategy={strategy}"])):
        assert (config.strategy, config.ft.type) == (strategy, ft_type)
    assert warned() == []


@pytest.mark.parametrize("ft_type", ["salt", "svd", "lora"])
def test_a_type_alone_names_the_strategy(load, warned, ft_type):
    config = load(f"ft: {{type: {ft_type}}}")
    assert (config.strategy, config.ft.type) == (ft_type, ft_type)
    assert warned() == []


@pytest.mark.parametrize("how", ["file", "option", "both overridden"])
def test_the_published_pair_means_svd(load, warned, how):
    if how == "file":
        config = load("strategy: salt\nft: {type: svd}")
    elif how == "option":
        config = load("ft: {type: svd}", strategy="salt")
    else:
        config = load("strategy: salt\nft: {type: salt}", strategy="salt", overrides=["ft.type=svd"])
    assert (config.strategy, config.ft.type) == ("svd", "svd")
    (line,) = warned()
    assert "strategy salt with ft.type svd means svd (S-SAM)" in line


def test_salt_on_the_command_line_means_salt_for_a_file_of_strategy_svd(load, warned):
    config = load("strategy: svd\nft: {type: svd}", strategy="salt")
    assert (config.strategy, config.ft.type) == ("salt", "salt")
    assert len(warned()) == 1


@pytest.mark.parametrize(
    ("ft_type", "strategy"),
    [("svd", "lora"), ("salt", "lora"), ("lora", "salt"), ("salt", "svd"), ("lora", "svdbiastuning")],
)
def test_a_strategy_from_the_command_line_beats_a_type_from_a_file(load, warned, ft_type, strategy):
    config = load(f"ft: {{type: {ft_type}}}", strategy=strategy)
    assert (config.strategy, config.ft.type) == (strategy, TYPE_OF[strategy])
    (line,) = warned()
    assert f"model.yaml: ft.type {ft_type} is ignored, strategy {strategy} decides" in line


@pytest.mark.parametrize("strategy", ["biastuning", "decoder", "full", "none"])
def test_a_strategy_without_adapters_drops_the_type(load, warned, strategy):
    for config in (load("ft: {type: salt}", strategy=strategy), load(f"strategy: {strategy}\nft: {{type: salt}}")):
        assert (config.strategy, config.ft.type) == (strategy, None)
    assert len(warned()) == 2


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("strategy: lora\nft: {type: salt}", {}),
        ("strategy: svd\nft: {type: salt}", {}),
        ("strategy: salt", {"overrides": ["ft.type=lora"]}),
        ("strategy: full", {"overrides": ["ft.type=lora"]}),
        ("seed: 0", {"overrides": ["ft.type=lora"], "strategy": "salt"}),
        ("seed: 0", {"overrides": ["ft.type=salt"], "strategy": "decoder"}),
    ],
)
def test_any_other_contradiction_is_refused(refused, model, options):
    assert "leave ft.type out and it follows the strategy" in refused(model, **options)


def test_use_salt_never_decides(load, warned):
    assert load("use_salt: true", strategy="lora").strategy == "lora"
    assert load("use_salt: false").strategy == "salt"
    assert ["use_salt" in line for line in warned()] == [True, True]
    load("use_salt: true")
    assert warned() == []
