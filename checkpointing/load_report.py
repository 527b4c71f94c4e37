"""Loading a state dict with a report that accounts for every key of the file and of the model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Size, Tensor, nn

from utils.errors import UserError


@dataclass
class LoadReport:
    """The keys of a weights file: loaded, the resized ones among them, and unused, for the reason `why_unused`.

    `copies` are keys whose tensor the file holds under another name as well.
    """

    loaded: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    why_unused: str = ""
    copies: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} weights loaded"]
        if self.resized:
            parts.append(f"{len(self.resized)} of them resized to the image size")
        if self.unused:
            parts.append(f"{len(self.unused)} not used ({self.why_unused})")
        if self.copies:
            parts.append(f"{len(self.copies)} stored twice")
        return ", ".join(parts)


def load_keys(
    model: nn.Module,
    state: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
    path: Path,
    fit: Callable[[str, Tensor, Size], Tensor] = lambda key, value, shape: value,
    is_unused: Callable[[str], bool] = lambda key: False,
    why_unused: str = "",
) -> LoadReport:
    """Loads `state` into `model`, in place: every key of `state` and of `target`, or nothing.

    Args:
        target: the part of the model's state dict that the state must fill.
        path: the file that the state came from, for errors.
        fit: (key, value, wanted shape) -> the value, resized if the key allows it.
        is_unused: whether a key that the model does not have may be ignored.
        why_unused: the reason for that, for the report.

    Raises:
        UserError: a key is missing, unexpected or of another shape; the model is then unchanged.
    """
    report = LoadReport(why_unused=why_unused)
    fitted: dict[str, Tensor] = {}
    for key, value in state.items():
        if key not in target:
            if is_unused(key):
                report.unused.append(key)
                continue
            raise UserError(f"{path}: unexpected key '{key}'; this model has no such weight")
        new = fit(key, value.float(), target[key].shape)
        if new.shape != target[key].shape:
            raise UserError(
                f"{path}: '{key}' has shape {tuple(value.shape)}, the model needs {tuple(target[key].shape)}"
            )
        if new.shape != value.shape:
            report.resized.append(key)
        report.loaded.append(key)
        fitted[key] = new
    missing = sorted(set(target) - set(fitted))
    if missing:
        raise UserError(f"{path}: {len(missing)} weights are missing, the first is '{missing[0]}'")
    model.load_state_dict(fitted, strict=False)
    return report
