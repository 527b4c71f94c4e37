"""Rules over several sections: profile defaults, strategy against adapter type, one image size, unused keys."""

import logging
from typing import Any

from utils.config.options import BASELINE_ARCHS, SAM2_ARCH, SAM_ARCH, SAM_TYPES
from utils.config.sources import COMMAND_LINE, Draft, KeyPath, dotted, show
from utils.errors import ConfigError

logger = logging.getLogger(__name__)

STRATEGY_OPTION = "--training_strategy"

SAM2_STRIDE = 32  # of the neck's coarsest features
SAM2_SVD_RATIO = 0.1  # the published one

# The adapter type behind each strategy; strategies that are not here have no adapters.
ADAPTER_TYPE = {"salt": "salt", "svd": "svd", "svdbiastuning": "svd", "lora": "lora"}

# Where the released implementation departs from the paper or from SAM. `official` is the schema's own defaults.
PROFILES: dict[str, dict[KeyPath, Any]] = {
    "official": {},
    "released": {
        ("sam", "encoder_attention"): "released",
        ("sam", "pos_embed_resize"): "avg_pool",
        ("sam", "high_res_features"): False,
        ("training", "focal_on"): "probabilities",
        ("training", "reg_multiplier"): 0.0,
        ("ft", "salt_init"): "normal",
        ("prompts", "text_affine_norm"): "batchnorm",
        ("data_transforms", "pixel_std"): [53.395, 57.12, 57.375],
    },
}

# Published keys that nothing here reads, each with the values that ask for nothing.
UNUSED_KEYS: dict[KeyPath, tuple[Any, ...]] = {
    ("model",): (),
    ("Hiera",): (),
    ("prompts", "LOCATION"): (),
    ("prompts", "DROPOUT"): (),
    ("prompts", "NUM_TOKENS"): (),
    ("data", "volume_channel"): (-1,),
    ("data", "negative_to_positive_ratio"): (-1,),
}


def resolve(draft: Draft, file_strategy: Any, file_type: Any) -> None:
    """Fill in what follows from other keys, in place. Every value in `draft` must already have its type.

    Args:
        draft: merged files and command line.
        file_strategy: `strategy` as the files alone have it.
        file_type: `ft.type` as the files alone have it.

    Raises:
        ConfigError: two keys contradict each other.
    """
    _drop_unused(draft)
    _apply_profile(draft)
    _fit_architecture(draft)
    _share_image_size(draft)
    _count_classes(draft)
    _settle_strategy(draft, file_strategy, file_type)
    _check_use_salt(draft)
    _check_weights(draft)
    _check_clip_path(draft)
    _check_box_prompt(draft)


def _drop_unused(draft: Draft) -> None:
    for path, silent in UNUSED_KEYS.items():
        value = draft.get(path)
        if value is None:
            continue
        if value not in silent:
            logger.warning("%s: %s is accepted and has no effect", draft.origin(path), dotted(path))
        draft.set(path, None, draft.origin(path))


def _apply_profile(draft: Draft) -> None:
    profile = draft.get(("profile",)) or "official"
    asked_now = draft.get(("profile",)) is not None and draft.origin(("profile",)) == COMMAND_LINE
    for path, released in PROFILES["released"].items():
        mine = draft.get(path)
        if mine is None and path in PROFILES[profile]:
            draft.set(path, PROFILES[profile][path], f"profile {profile}")
        elif asked_now and mine is not None and (mine == released) != (profile == "released"):
            origin, key = draft.origin(path), dotted(path)
            logger.warning("%s: %s = %s stays as it is set, whatever profile %s says", origin, key, show(mine), profile)


def _fit_architecture(draft: Draft) -> None:
    """Defaults and checks of one architecture: SAM2's sizes and published ranks, the baselines' only strategy."""
    arch, strategy = draft.get(("arch",)) or SAM_ARCH, draft.get(("strategy",))
    if arch in BASELINE_ARCHS:
        if strategy is None:
            draft.set(("strategy",), "full", f"arch {arch}")
        elif strategy not in ("full", "none"):
            origin = draft.origin(("strategy",))
            raise ConfigError(
                f"{origin}: strategy = {strategy}, but {arch} is trained whole; give --training_strategy full"
            )
        return
    sam_type, origin = draft.get(("sam", "sam_type")), draft.origin(("sam", "sam_type"))
    if sam_type is None:
        draft.set(("sam", "sam_type"), SAM_TYPES[arch][0], f"arch {arch}")
    elif sam_type not in SAM_TYPES[arch]:
        raise ConfigError(f"{origin}: sam.sam_type = {sam_type}; {arch} has {', '.join(SAM_TYPES[arch])}")
    if arch == SAM2_ARCH:
        _fit_sam2(draft)


def _fit_sam2(draft: Draft) -> None:
    for path in (("sam", "img_size"), ("data_transforms", "img_size")):
        if (draft.get(path) or 0) % SAM2_STRIDE:
            raise ConfigError(
                f"{draft.origin(path)}: {dotted(path)} = {draft.get(path)}; SAM2 needs a multiple of {SAM2_STRIDE}"
            )
    if all(draft.get(("ft", key)) is None for key in ("svd_rank_linear", "svd_rank_conv2d", "svd_ratio")):
        draft.set(("ft", "svd_ratio"), SAM2_SVD_RATIO, f"arch {SAM2_ARCH}")
    if draft.get(("profile",)) == "released" and draft.get(("prompts", "NUM_TEXT_REPEAT")) is None:
        draft.set(("prompts", "NUM_TEXT_REPEAT"), 2, "profile released")


def _share_image_size(draft: Draft) -> None:
    sam, transforms = ("sam", "img_size"), ("data_transforms", "img_size")
    sizes = {path: draft.get(path) for path in (sam, transforms) if draft.get(path) is not None}
    if len(set(sizes.values())) > 1:
        raise ConfigError(
            f"{draft.origin(sam)}: sam.img_size = {sizes[sam]}, but {draft.origin(transforms)}: "
            f"data_transforms.img_size = {sizes[transforms]}; set both alike, or only one"
        )
    for path in (sam, transforms):
        for given, size in sizes.items():
            if path not in sizes:
                draft.set(path, size, draft.origin(given))


def _count_classes(draft: Draft) -> None:
    path = ("sam", "num_classes")
    labels = draft.get(("data", "label_list"))
    if labels is None:
        return
    classes = draft.get(path)
    if classes is None:
        draft.set(path, len(labels), draft.origin(("data", "label_list")))
    elif classes != len(labels):
        origin = draft.origin(path)
        logger.warning("%s: sam.num_classes = %d has no effect, data.label_list has %d", origin, classes, len(labels))


def _settle_strategy(draft: Draft, file_strategy: Any, file_type: Any) -> None:
    """Set `strategy` and `ft.type` so that they agree.

    1. A type alone names the strategy; with neither, the strategy is salt. A strategy alone names the type.
    2. Strategy salt with type svd is the published pair and means svd (S-SAM), with a warning; only when a file that
       asks for svd by its own `strategy` too meets `--training_strategy salt` does rule 3 hold instead.
    3. A strategy from the command line beats a type from a file, with a warning.
    4. A strategy without adapters drops a type from a file, with a warning.
    5. Any other difference is an error.
    """
    strategy, ft_type = draft.get(("strategy",)), draft.get(("ft", "type"))
    type_origin = draft.origin(("ft", "type"))
    type_from_file = ft_type is not None and type_origin != COMMAND_LINE
    strategy_origin = draft.origin(("strategy",))
    strategy_from_file = strategy_origin not in (COMMAND_LINE, STRATEGY_OPTION)

    if strategy is None:
        strategy = ft_type or "salt"
    wanted = ADAPTER_TYPE.get(strategy)
    file_means_svd = file_strategy in ("svd", "svdbiastuning") and file_type == "svd"
    overruled = type_from_file and not strategy_from_file
    if ft_type is None or ft_type == wanted:
        pass
    elif (strategy, ft_type) == ("salt", "svd") and not (overruled and file_means_svd):
        logger.warning("%s: strategy salt with ft.type svd means svd (S-SAM); for SALT set ft.type: salt", type_origin)
        strategy = wanted = "svd"
    elif overruled or (type_from_file and wanted is None):
        logger.warning("%s: ft.type %s gives way to strategy %s", type_origin, ft_type, strategy)
    else:
        needs = f"needs ft.type {wanted}" if wanted else "has no adapters"
        raise ConfigError(
            f"{type_origin}: ft.type = {ft_type}, but strategy {strategy} ({strategy_origin}) {needs}; "
            "leave ft.type out and it follows the strategy"
        )
    draft.set(("strategy",), strategy, strategy_origin)
    draft.set(("ft", "type"), wanted, type_origin)


def _check_use_salt(draft: Draft) -> None:
    use_salt, strategy = draft.get(("use_salt",)), draft.get(("strategy",))
    if use_salt is not None and use_salt != (strategy == "salt"):
        origin = draft.origin(("use_salt",))
        logger.warning("%s: use_salt = %s has no effect, the strategy is %s", origin, show(use_salt), strategy)


def _check_weights(draft: Draft) -> None:
    path = draft.get(("pretrained_path",))
    if path is not None and draft.get(("sam", "weights")) == "random":
        raise ConfigError(
            f"{draft.origin(('sam', 'weights'))}: sam.weights = random, but pretrained_path = {path} "
            f"({draft.origin(('pretrained_path',))}); drop one of them"
        )


def _check_clip_path(draft: Draft) -> None:
    if draft.get(("prompts", "clip_path")) is not None and draft.get(("prompts", "text_encoder")) == "learned":
        origin = draft.origin(("prompts", "clip_path"))
        logger.warning("%s: prompts.clip_path has no effect, prompts.text_encoder is learned", origin)


def _check_box_prompt(draft: Draft) -> None:
    prompt, strategy = draft.get(("prompts", "type")), draft.get(("strategy",))
    if prompt in (None, "text") or strategy == "none":
        return
    raise ConfigError(
        f"{draft.origin(('prompts', 'type'))}: prompts.type = {prompt} is for evaluation alone, but the strategy is "
        f"{strategy or 'salt'}; give --training_strategy none"
    )
