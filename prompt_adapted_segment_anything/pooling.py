"""Maxima over neighbouring tokens, whose backward pass finds them again."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import max_pool2d


def pooled(tokens: Tensor, stride: tuple[int, int]) -> Tensor:
    """Maxima over `stride` (rows, columns) of tokens: (..., h, w, d) -> (..., h / stride, w / stride, d).

    Of the tokens the backward pass keeps themselves, which may be a view of what is kept anyway.
    """
    return tokens if stride == (1, 1) else _Pool.apply(tokens, stride)


def pooled_gradient(tokens: Tensor, stride: tuple[int, int], grad: Tensor) -> Tensor:
    """The gradient of `tokens` (..., h, w, d), of that of their maxima; the first of equal ones gets it."""
    if stride == (1, 1):
        return grad
    images = _images(tokens)
    _, indices = max_pool2d(images, stride, return_indices=True)
    backward = torch.ops.aten.max_pool2d_with_indices_backward  # autograd's own call would stop a compiler
    found = backward(_images(grad), images, stride, stride, (0, 0), (1, 1), False, indices)
    return found.movedim(1, -1).unflatten(0, tokens.shape[:-3])


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, stride: tuple[int, int]) -> Tensor:
        ctx.stride = stride
        ctx.save_for_backward(tokens)
        return max_pool2d(_images(tokens), stride).movedim(1, -1).unflatten(0, tokens.shape[:-3])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (tokens,) = ctx.saved_tensors
        return pooled_gradient(tokens, ctx.stride, grad), None


def _images(tokens: Tensor) -> Tensor:
    """(..., h, w, d) -> (images, d, h, w), in the tokens' order of memory."""
    return tokens.flatten(0, -4).movedim(-1, 1)
