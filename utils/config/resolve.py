"""Rules over several sections: profile defaults, strategy and adapter type, one image size, unused keys."""

import logging
from typing import Any

from utils.config.options import ADAPTER_TYPE, BASELINE_ARCHS, SAM2_ARCH, SAM_ARCH, SAM_TYPES, UNUSED_KEYS
from utils.config.rules import check
from utils.config.sources import COMMAND_LINE, Draft, KeyPath, dotted, show
from utils.errors import ConfigError

logger = logging.getLogger(__name__)

STRATEGY_OPTION = "--training_strategy"

SAM2_STRIDE = 32  # of the neck's coarsest feature map
SAM2_SVD_RATIO = 0.1  # the published one

# Where the released implementation differs from the paper or from SAM. `official`: the schema's defaults.
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


def resolve(draft: Draft, file_strategy: Any, file_type: Any) -> None:
    """Sets the keys that follow from others, in place. The values in `draft` must have been checked one by one.

    Args:
        draft: merged files and command line.
        file_strategy: `strategy` of the files, without the command line.
        file_type: `ft.type` of the files, without the command line.

    Raises:
        ConfigError: two keys contradict each other.
    """
    _drop_unused(draft)
    _apply_profile(draft)
    _apply_architecture(draft)
    _share_image_size(draft)
    _count_classes(draft)
    _match_strategy_and_type(draft, file_strategy, file_type)
    check(draft)


def _drop_unused(draft: Draft) -> None:
    for path, without_warning in UNUSED_KEYS.items():
        value = draft.get(path)
        if value is None:
            continue
        if value not in without_warning:
            logger.warning("%s: %s is accepted and has no effect", draft.origin(path), dotted(path))
        draft.set(path, None, draft.origin(path))


def _apply_profile(draft: Draft) -> None:
    profile = draft.get(("profile",)) or "official"
    on_command_line = draft.get(("profile",)) is not None and draft.origin(("profile",)) == COMMAND_LINE
    for path, released in PROFILES["released"].items():
        current = draft.get(path)
        if current is None and path in PROFILES[profile]:
            draft.set(path, PROFILES[profile][path], f"profile {profile}")
        elif on_command_line and current is not None and (current == released) != (profile == "released"):
            setting = f"{draft.origin(path)}: {dotted(path)} = {show(current)}"
            logger.warning("%s overrides profile %s", setting, profile)


def _apply_architecture(draft: Draft) -> None:
    """Sets the defaults of the architecture (its first size, SAM2's published ranks) and checks what it supports."""
    arch, strategy = draft.get(("arch",)) or SAM_ARCH, draft.get(("strategy",))
    if arch in BASELINE_ARCHS:
        if draft.get(("sam", "mask_head")) == "detail":
            raise ConfigError(f"{draft.origin(('sam', 'mask_head'))}: sam.mask_head = detail, but {arch} is not a SAM")
        if strategy is None:
            draft.set(("strategy",), "full", f"arch {arch}")
        elif strategy not in ("full", "none"):
            origin = draft.origin(("strategy",))
            raise ConfigError(
                f"{origin}: strategy = {strategy}, but {arch} trains all its weights; give --training_strategy full"
            )
        return
    sam_type, origin = draft.get(("sam", "sam_type")), draft.origin(("sam", "sam_type"))
    if sam_type is None:
        draft.set(("sam", "sam_type"), SAM_TYPES[arch][0], f"arch {arch}")
    elif sam_type not in SAM_TYPES[arch]:
        raise ConfigError(f"{origin}: sam.sam_type = {sam_type}; {arch} has {', '.join(SAM_TYPES[arch])}")
    if arch == SAM2_ARCH:
        _apply_sam2(draft)


def _apply_sam2(draft: Draft) -> None:
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
            f"data_transforms.img_size = {sizes[transforms]}; set both to one value, or only one of them"
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


def _match_strategy_and_type(draft: Draft, file_strategy: Any, file_type: Any) -> None:
    """Sets `strategy` and `ft.type` so that they agree. The first rule that applies counts; rules 3 to 5 warn.

    1. Neither is set: the strategy is salt.
    2. One is set: the other follows from it.
    3. Strategy salt with type svd, as published: both become svd (S-SAM). Exception: files that have strategy svd and
       type svd, with `--training_strategy salt`; then rule 4 applies.
    4. The strategy is from the command line and the type from a file: the type follows the strategy.
    5. The strategy has no adapters and the type is from a file: the type is dropped.
    6. Any other difference is an error.
    """
    strategy, ft_type = draft.get(("strategy",)), draft.get(("ft", "type"))
    type_origin = draft.origin(("ft", "type"))
    type_from_file = ft_type is not None and type_origin != COMMAND_LINE
    strategy_origin = draft.origin(("strategy",))
    strategy_from_file = strategy_origin not in (COMMAND_LINE, STRATEGY_OPTION)

    if strategy is None:
        strategy = ft_type or "salt"
    wanted = ADAPTER_TYPE[strategy]
    file_means_svd = file_strategy in ("svd", "svdbiastuning") and file_type == "svd"
    type_follows = type_from_file and not strategy_from_file
    if ft_type is None or ft_type == wanted:
        pass
    elif (strategy, ft_type) == ("salt", "svd") and not (type_follows and file_means_svd):
        logger.warning("%s: strategy salt with ft.type svd means svd (S-SAM); for SALT set ft.type: salt", type_origin)
        strategy = wanted = "svd"
    elif type_follows or (type_from_file and wanted is None):
        logger.warning("%s: ft.type %s is ignored, strategy %s decides", type_origin, ft_type, strategy)
    else:
        needs = f"needs ft.type {wanted}" if wanted else "has no adapters"
        raise ConfigError(
            f"{type_origin}: ft.type = {ft_type}, but strategy {strategy} ({strategy_origin}) {needs}; "
            "leave ft.type out and it follows the strategy"
        )
    draft.set(("strategy",), strategy, strategy_origin)
    draft.set(("ft", "type"), wanted, type_origin)
