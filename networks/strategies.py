"""Training strategies: the parameters that each one trains, and their counts."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import adapters
from networks.base import SegmentationModel
from utils.errors import ConfigError

_BIAS_STRATEGIES = ("biastuning", "svdbiastuning")


def apply_strategy(model: SegmentationModel, strategy: str, decoder_training: bool = False) -> None:
    """Sets requires_grad of every parameter: True for those that `strategy` trains. Inject adapters before."""
    model.requires_grad_(False)
    if strategy == "none":
        return
    if strategy == "full":
        trained = list(model.all_used_parameters())
    elif strategy == "decoder":
        trained = [*model.decoder_parameters(), *model.prompt_parameters()]
    else:
        trained = [*model.always_trained(), *adapters.adapter_parameters(model).values()]
        if strategy in _BIAS_STRATEGIES:
            trained += list(model.encoder_biases())
        if decoder_training:
            trained += list(model.decoder_parameters())
    for parameter in trained:
        parameter.requires_grad_(True)


def freeze(model: SegmentationModel, patterns: Sequence[str]) -> None:
    """Freezes the trained parameters whose names match one of `patterns` (with * and ?); call after `apply_strategy`.

    Raises: ConfigError for a pattern that matches no trained parameter, or if none is left.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for pattern in patterns:
        matching = [name for name in trained if fnmatchcase(name, pattern)]
        if not matching:
            raise ConfigError(
                f"training.freeze: '{pattern}' matches no trained parameter; their names are such as "
                f"'{next(iter(trained), '')}'"
            )
        for name in matching:
            trained[name].requires_grad_(False)
    if patterns and not any(p.requires_grad for p in trained.values()):
        raise ConfigError(f"training.freeze: {', '.join(patterns)} leave nothing to train")


def parameter_counts(model: SegmentationModel) -> dict[str, Any]:
    """{"trainable", "total", "percent", "modules": {module: {"trainable", "total"}}}, counted the paper's way.

    That is: a CLIP prompt counts both of CLIP's towers; a weight stored as singular factors counts once; parameters
    that the paper's model does not have (`uncounted_parameters`) count only if they are trained.
    """
    modules: dict[str, dict[str, int]] = {}
    uncounted = sum(p.numel() for p in model.uncounted_parameters() if not p.requires_grad)
    for name, part in model.named_children():
        trainable, total = adapters.count_parameters(part)
        modules[name] = {"trainable": trainable, "total": total + getattr(part, "frozen_parameters", 0)}
    if own := list(model.parameters(recurse=False)):  # such as SAM2's embedding of an absent memory
        modules["others"] = {
            "trainable": sum(p.numel() for p in own if p.requires_grad),
            "total": sum(p.numel() for p in own),
        }
    if uncounted:
        modules["image_encoder"]["total"] -= uncounted
    trainable, total = (sum(counts[key] for counts in modules.values()) for key in ("trainable", "total"))
    return {"trainable": trainable, "total": total, "percent": 100 * trainable / total, "modules": modules}
