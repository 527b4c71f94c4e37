"""Linear layers as chains of factors, with backward passes written for them: less is kept, less is computed."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear


def compute_dtype(x: Tensor) -> torch.dtype:
    """What a linear layer computes `x` in: autocast's type where autocast is on."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


class Rounded:
    """Frozen tensors in another type, rounded once and kept until the tensors or the type change."""

    def __init__(self) -> None:
        self._key: Any = None
        self._kept: tuple[Tensor, ...] = ()

    def __call__(self, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
        """`tensors` in `dtype`; themselves where that is theirs."""
        key = (dtype, *((id(tensor), tensor.device, tensor._version) for tensor in tensors))
        if key != self._key:
            self._key, self._kept = key, tuple(tensor.to(dtype) for tensor in tensors)
        return self._kept


class SpectralLinear(torch.autograd.Function):
    """y = U core Vh x + bias with core = blockdiag(diag(top), block), without the weight U core Vh.

    Of the activations only Vh x is kept, and neither x nor what the core makes of it: U and Vh get no gradient. `top`
    and `block` may be of a higher precision than the rest, and so are their gradients.

    Arguments: x (..., in); U (out, r) and Vh (r, in), both of the type to compute in; top (k,); block (r - k, r - k) or
    None where k = r; bias (out,) or None.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, U: Tensor, Vh: Tensor, top: Tensor, block: Tensor | None, bias: Tensor | None
    ) -> Tensor:
        ctx.x_like = (x.shape, x.dtype)
        with torch.autocast(x.device.type, enabled=False):
            z = _rows(x).to(U.dtype) @ Vh.mT  # (N, r)
            ctx.save_for_backward(z, U, Vh, top, block)
            y = linear(_times_core(z, top, block), U, None if bias is None else bias.to(U.dtype))
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        z, U, Vh, top, block = ctx.saved_tensors
        shape, dtype = ctx.x_like
        k = top.shape[0]
        grad = _rows(grad)
        g = grad @ U  # (N, r), the gradient of core z
        dx = d_top = d_block = d_bias = None
        if ctx.needs_input_grad[3]:
            d_top = (g[:, :k].to(top.dtype) * z[:, :k]).sum(0)
        if block is not None and ctx.needs_input_grad[4]:
            d_block = (g[:, k:].mT @ z[:, k:]).to(block.dtype)
        if ctx.needs_input_grad[5]:
            d_bias = grad.sum(0)
        if ctx.needs_input_grad[0]:
            dx = (_times_core(g, top, None if block is None else block.mT) @ Vh).view(shape).to(dtype)
        return dx, None, None, d_top, d_block, d_bias


class LowRankLinear(torch.autograd.Function):
    """y = W x + bias + up down dropout(x); of dropout's work only which elements fell is kept, a byte each.

    Arguments: x (..., in); W (out, in), of the type to compute in; bias (out,) or None; down (d, in); up (out, d);
    keep, the probability that an element stays, 1 for no dropout.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, keep: float) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            rows = _rows(x).to(W.dtype)
            stay = None if keep == 1 else torch.empty_like(rows, dtype=torch.bool).bernoulli_(keep)
            low = linear(_thinned(rows, stay, keep), down.to(W.dtype))  # (N, d)
            y = linear(rows, W, None if bias is None else bias.to(W.dtype))
            y.addmm_(low, up.to(W.dtype).mT)
        ctx.save_for_backward(x, W, down, up, stay, low)
        ctx.keep = keep
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, W, down, up, stay, low = ctx.saved_tensors
        grad = _rows(grad)
        d_low = grad @ up.to(W.dtype)  # (N, d)
        d_up = (grad.mT @ low).to(up.dtype)
        d_down = (d_low.mT @ _thinned(_rows(x).to(W.dtype), stay, ctx.keep)).to(down.dtype)
        dx = d_bias = None
        if ctx.needs_input_grad[0]:
            dx = (grad @ W).add_(_thinned(d_low @ down.to(W.dtype), stay, ctx.keep)).view(x.shape).to(x.dtype)
        if ctx.needs_input_grad[2]:
            d_bias = grad.sum(0)
        return dx, None, d_bias, d_down, d_up, None


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


def _times_core(z: Tensor, top: Tensor, block: Tensor | None) -> Tensor:
    """core z for every row of z (N, r), each half written once into its place."""
    if block is None:
        return z * top.to(z.dtype)
    k = top.shape[0]
    out = torch.empty_like(z)
    torch.mul(z[:, :k], top.to(z.dtype), out=out[:, :k])
    torch.mm(z[:, k:], block.to(z.dtype).mT, out=out[:, k:])
    return out


def _thinned(x: Tensor, stay: Tensor | None, keep: float) -> Tensor:
    """Dropout with a given choice of what stays."""
    return x if stay is None else (x * stay).mul_(1 / keep)
