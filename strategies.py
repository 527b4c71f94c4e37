"""What a training strategy trains of a model, and how much that is."""

from typing import Any

from torch import nn

import adapters

_BIAS_STRATEGIES = ("biastuning", "svdbiastuning")


def apply_strategy(model: nn.Module, strategy: str, decoder_training: bool = False) -> None:
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
            trained += [p for name, p in model.image_encoder.named_parameters() if name.endswith(".bias")]
        if decoder_training:
            trained += list(model.decoder_parameters())
    for parameter in trained:
        parameter.requires_grad_(True)


def parameter_counts(model: nn.Module) -> dict[str, Any]:
    """{"trainable", "total", "percent", "modules": {module: {"trainable", "total"}}}, counted the paper's way.

    That is: where CLIP gives the prompt, both its towers count; a weight held as singular factors counts once; and
    frozen tables of relative positions do not count, since the model that the paper counted has none.
    """
    modules = {}
    uncounted = sum(table.numel() for table in model.relative_positions() if not table.requires_grad)
    for name, part in model.named_children():
        trainable, total = adapters.count_parameters(part)
        modules[name] = {"trainable": trainable, "total": total + getattr(part, "frozen_parameters", 0)}
    modules["image_encoder"]["total"] -= uncounted
    trainable, total = (sum(counts[key] for counts in modules.values()) for key in ("trainable", "total"))
    return {"trainable": trainable, "total": total, "percent": 100 * trainable / total, "modules": modules}
