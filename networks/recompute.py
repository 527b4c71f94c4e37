"""Activations that the backward pass makes again instead of keeping them: single ones, or all of a function's."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

_kept = ContextVar("kept", default=False)


def remade(
    tensors: Sequence[Tensor],
    make: Callable[[], Sequence[Tensor]],
    write_result: Callable[[Tensor], None] | None = None,
) -> saved_tensors_hooks:
    """A context: what autograd keeps of `tensors` in it is how to make them again.

    Args:
        tensors: given to operations inside the context, and alive as long as it is.
        make: gives equal ones again, without gradients; what it refers to stays in memory.
        write_result: writes again what the operations make of `tensors` and has the first one's shape, into a tensor
            of its layout; None where it is to be kept.
    """
    hooks = _Hooks(tensors, make, write_result)  # apart from the context, which would refer to itself and live on
    return saved_tensors_hooks(hooks.pack, hooks.unpack)


def remakes() -> bool:
    """Whether there is anything to gain: a backward pass will come, and nothing else decides what is kept for it."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling() and not _kept.get()


@contextmanager
def nothing_remade() -> Iterator[None]:
    """A context in which `remakes()` is false."""
    token = _kept.set(True)
    try:
        yield
    finally:
        _kept.reset(token)


def computed_again(function: Callable[..., Any], *inputs: Any) -> Any:
    """function(*inputs), of which the inputs alone are kept; the backward pass computes all else again.

    With the same random numbers. What `function` remakes itself, it would keep beside its inputs: here it does not.
    """
    contexts: dict[str, Any] = {}
    if not torch.compiler.is_compiling():  # compilers take other contexts, and then nothing is remade anyway
        contexts["context_fn"] = lambda: (nothing_remade(), nothing_remade())
    return checkpoint(function, *inputs, use_reentrant=False, **contexts)


@dataclass(frozen=True)
class _Recipe:
    """A view of the tensor that is made at a position."""

    position: int
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class _Result:
    """The layout of a result."""

    size: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


class _Hooks:
    def __init__(
        self,
        tensors: Sequence[Tensor],
        make: Callable[[], Sequence[Tensor]],
        write_result: Callable[[Tensor], None] | None,
    ) -> None:
        self._positions = {_storage(tensor): position for position, tensor in enumerate(tensors)}
        self._make = make
        self._made: dict[int, Tensor] = {}
        self._write_result, self._result_size = write_result, tensors[0].size()

    def pack(self, tensor: Tensor) -> Tensor | _Recipe | _Result:
        size, stride = tensor.size(), tensor.stride()
        position = self._positions.get(_storage(tensor))
        if position is not None:
            return _Recipe(position, size, stride, tensor.storage_offset())
        if self._write_result and size == self._result_size:
            return _Result(size, stride, tensor.dtype, tensor.device)
        return tensor

    def unpack(self, kept: Tensor | _Recipe | _Result) -> Tensor:
        if isinstance(kept, _Recipe):
            return self._again(kept)
        if isinstance(kept, _Result):
            result = torch.empty_strided(kept.size, kept.stride, dtype=kept.dtype, device=kept.device)
            self._write_result(result)
            return result
        return kept

    def _again(self, recipe: _Recipe) -> Tensor:
        if recipe.position not in self._made:
            with torch.no_grad():
                self._made = dict(enumerate(self._make()))
        made = self._made.pop(recipe.position)  # each is asked for once in a backward pass, so that none outlives it
        return made.as_strided(recipe.size, recipe.stride, recipe.offset)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
