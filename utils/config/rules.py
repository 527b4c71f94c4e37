"""Rules over several sections of a resolved config: keys that contradict each other, or have no effect."""

import logging
from typing import get_args

from adapters.registry import METHODS
from utils.config.options import ADAPTER_TYPE, BASELINE_ARCHS, TrainedPrompt
from utils.config.schema import DataTransformsConfig
from utils.config.sources import Draft, show
from utils.errors import ConfigError

logger = logging.getLogger(__name__)

# The augmentations: with one of them, an image is another one in every epoch.
_AUGMENTATIONS = [name for name in DataTransformsConfig.model_fields if name.startswith("use_")]


def check(draft: Draft) -> None:
    """Warns of keys without effect. Raises: ConfigError for two keys that contradict each other."""
    _check_rank_rule(draft)
    _check_use_salt(draft)
    _check_weights(draft)
    _check_clip_path(draft)
    _check_prompt(draft)
    _check_threshold(draft)
    _check_label_weights(draft)
    _check_cache(draft)


def _check_rank_rule(draft: Draft) -> None:
    rule, strategy = draft.get(("ft", "rank_rule")), draft.get(("strategy",))
    if rule in (None, "fixed"):
        return
    method = METHODS.get(ADAPTER_TYPE[strategy] or "")
    if method is None or "svd_rank" not in method.ranks or (rule == "prune" and not method.prunable):
        raise ConfigError(
            f"{draft.origin(('ft', 'rank_rule'))}: ft.rank_rule = {rule}, but strategy {strategy} has no ranks that it "
            "could choose; leave it out, or give --training_strategy salt"
        )


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
            f"({draft.origin(('pretrained_path',))}); remove one of them"
        )


def _check_clip_path(draft: Draft) -> None:
    if draft.get(("prompts", "clip_path")) is not None and draft.get(("prompts", "text_encoder")) == "learned":
        origin = draft.origin(("prompts", "clip_path"))
        logger.warning("%s: prompts.clip_path has no effect, prompts.text_encoder is learned", origin)


def _check_prompt(draft: Draft) -> None:
    path, arch, strategy = ("prompts", "type"), draft.get(("arch",)), draft.get(("strategy",))
    prompt, problem = draft.get(path), ""
    if prompt in (None, "text"):
        return
    if draft.get(("data_transforms", "scale")) == "native":
        problem = ", but the windows of data_transforms.scale = native are prompted by text alone; set scale: fit"
    elif prompt in ("box", "points", "box_oracle") and draft.get(("evaluation", "tta")) == "flips":
        problem = ", which the mirror images of evaluation.tta = flips do not take; set tta: none"
    elif prompt not in get_args(TrainedPrompt) and strategy != "none":
        strategy = strategy or "salt"
        problem = f" is only for evaluation, but the strategy is {strategy}; give --training_strategy none"
    elif prompt in get_args(TrainedPrompt) and arch in BASELINE_ARCHS:
        problem = f", but {arch} takes no prompts; leave it out"
    if problem:
        raise ConfigError(f"{draft.origin(path)}: prompts.type = {prompt}{problem}")


def _check_threshold(draft: Draft) -> None:
    path = ("evaluation", "threshold")
    if draft.get(path) != "val":
        return
    origin = draft.origin(path)
    if draft.get(("data", "val")) == "test":
        raise ConfigError(
            f"{origin}: evaluation.threshold = val, but data.val = test ({draft.origin(('data', 'val'))}), and a "
            "threshold chosen on test images would falsify the scores; leave data.val out"
        )
    if draft.get(("strategy",)) == "none":
        raise ConfigError(f"{origin}: evaluation.threshold = val, but strategy none trains nothing; give a number")


def _check_label_weights(draft: Draft) -> None:
    path = ("training", "label_weights")
    weights, names = draft.get(path), draft.get(("data", "label_names"))
    if not weights or names is None:
        return
    for label in weights:
        if label not in names[1:]:
            raise ConfigError(
                f"{draft.origin(path)}: training.label_weights names '{label}', but data.label_names has "
                f"{', '.join(names[1:])}"
            )


def _check_cache(draft: Draft) -> None:
    path = ("training", "cache_embeddings")
    if not draft.get(path):
        return
    for name in _AUGMENTATIONS:
        if draft.get(key := ("data_transforms", name)):
            raise ConfigError(
                f"{draft.origin(path)}: training.cache_embeddings = {draft.get(path)}, but data_transforms.{name} "
                f"({draft.origin(key)}) makes another image in every epoch; set one of them false or 0"
            )
    if draft.get(key := ("data_transforms", "scale")) == "native":
        raise ConfigError(
            f"{draft.origin(path)}: training.cache_embeddings = {draft.get(path)}, but data_transforms.scale = native "
            f"({draft.origin(key)}) crops another part in every epoch; set scale: fit"
        )
