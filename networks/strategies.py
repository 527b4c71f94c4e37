"""What a training strategy trains of a model, and how much that is."""

from typing import Any

import adapters
from networks.base import SegmentationModel

_BIAS_STRATEGIES = ("biastuning", "svdbiastuning")


def apply_strategy(model: SegmentationModel, strategy: str, decoder_training: bool = False) -> None:
    """Sets requires_grad of every parameter to what `strategy` trains; adapters must be in place already."""
    model.requires_grad_(False)
    if strategy == "none":
        return
    if strategy == "full":
        trained = list(model.all_used_parameters())
    elif strategy == "decoder":
        trained = [*model.decoder_parameters(), *model.text_parameters()]
    else:
        trained = [*model.always_trained(), *adapters.adapter_parameters(model).values()]
        if strategy in _BIAS_STRATEGIES:
            trained += list(model.encoder_biases())
        if decoder_training:
            trained += list(model.decoder_parameters())
    for parameter in trained:
        parameter.requires_grad_(True)


def parameter_counts(model: SegmentationModel) -> dict[str, Any]:
    """{"trainable", "total", "percent", "modules": {module: {"trainable", "total"}}}, counted the paper's way.

    That is: where CLIP gives the prompt, both its towers count; a weight held as singular factors counts once; and
    what the model that the paper counted does not have (`uncounted_parameters`) counts only where it is trained.
    """
    modules = {}
    uncounted = sum(table.numel() for table in model.uncounted_parameters() if not table.requires_grad)
    for name, part in model.named_children():
        trainable, total = adapters.count_parameters(part)
        modules[name] = {"trainable": trainable, "total": total + getattr(part, "frozen_parameters", 0)}
    if uncounted:
        modules["image_encoder"]["total"] -= uncounted
    trainable, total = (sum(counts[key] for counts in modules.values()) for key in ("trainable", "total"))
    return {"trainable": trainable, "total": total, "percent": 100 * trainable / total, "modules": modules}
