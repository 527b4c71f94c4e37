"""Activations that the backward pass makes again, where that costs next to nothing, instead of keeping them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


def remade(tensors: Sequence[Tensor], make: Callable[[], Sequence[Tensor]]) -> saved_tensors_hooks:
    """A context: what autograd keeps of `tensors` in it is how to make them again.

    Args:
        tensors: given to operations inside the context.
        make: gives equal ones again, without gradients; what it refers to stays in memory.
    """
    hooks = _Hooks(tensors, make)  # apart from the context, which would refer to itself and outlive its use
    return saved_tensors_hooks(hooks.pack, hooks.unpack)


def remakes() -> bool:
    """Whether there is anything to gain: a backward pass will come, and no compiler plans what is kept for it."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()


@dataclass(frozen=True)
class _Recipe:
    """A view of the tensor that is made at a position."""

    position: int
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


class _Hooks:
    def __init__(self, tensors: Sequence[Tensor], make: Callable[[], Sequence[Tensor]]) -> None:
        self._positions = {_storage(tensor): position for position, tensor in enumerate(tensors)}
        self._make = make
        self._made: dict[int, Tensor] = {}

    def pack(self, tensor: Tensor) -> Tensor | _Recipe:
        position = self._positions.get(_storage(tensor))
        if position is None:
            return tensor
        return _Recipe(position, tensor.size(), tensor.stride(), tensor.storage_offset())

    def unpack(self, kept: Tensor | _Recipe) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        if kept.position not in self._made:
            with torch.no_grad():
                self._made = dict(enumerate(self._make()))
        made = self._made.pop(kept.position)  # each is asked for once in a backward pass, so that none outlives it
        return made.as_strided(kept.size, kept.stride, kept.offset)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
