"""Linear layers as chains of factors, with backward passes written for them: less is kept, less is computed."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear


class SpectralLinear(torch.autograd.Function):
    """y = U core Vh x + bias with core = blockdiag(diag(top), block), without the weight U core Vh.

    Of the activations only Vh x is kept, and neither x nor what the core makes of it: U and Vh get no gradient. The
    core multiplies activations or the factor beside it, whichever has fewer rows. Under autocast the factors are
    rounded in each pass: keeping them costs more than rounding them.

    Arguments: x (..., in); U (out, r); Vh (r, in); top (k,); block (r - k, r - k) or None where k = r; bias (out,) or
    None.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, U: Tensor, Vh: Tensor, top: Tensor, block: Tensor | None, bias: Tensor | None
    ) -> Tensor:
        ctx.x_like, dtype = (x.shape, x.dtype), _compute_dtype(x)
        with torch.autocast(x.device.type, enabled=False):
            z = _rows(x).to(dtype) @ Vh.to(dtype).mT  # (N, r)
            y = linear(*_with_core(z, top, block, U.to(dtype)), None if bias is None else bias.to(dtype))
        ctx.save_for_backward(z, U, Vh, top, block)
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        z, U, Vh, top, block = ctx.saved_tensors
        shape, dtype = ctx.x_like
        k = top.shape[0]
        grad = _rows(grad)
        g = grad @ U.to(z.dtype)  # (N, r), the gradient of core z
        dx = d_top = d_block = d_bias = None
        if ctx.needs_input_grad[3]:
            d_top = (g[:, :k].to(top.dtype) * z[:, :k]).sum(0)
        if block is not None and ctx.needs_input_grad[4]:
            d_block = (g[:, k:].mT @ z[:, k:]).to(block.dtype)
        if ctx.needs_input_grad[5]:
            d_bias = grad.sum(0)
        if ctx.needs_input_grad[0]:
            dx = linear(*_with_core(g, top, _transposed(block), Vh.to(z.dtype).mT)).view(shape).to(dtype)
        return dx, None, None, d_top, d_block, d_bias


class LowRankLinear(torch.autograd.Function):
    """y = W x + bias + up down dropout(x); of dropout's work only which elements fell is kept, a byte each.

    Where the weight up down costs less than its factors, at ranks near the layer's own, each pass forms it.

    Arguments: x (..., in); W (out, in); bias (out,) or None; down (d, in); up (out, d);
    keep, the probability that an element stays, 1 for no dropout.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, keep: float) -> Tensor:
        dtype = _compute_dtype(x)
        with torch.autocast(x.device.type, enabled=False):
            rows = _rows(x).to(dtype)
            stay, keep = (None, 1.0) if keep == 1 else _draw(rows, keep)
            bias = None if bias is None else bias.to(dtype)
            if _product_is_cheaper(len(rows), down, up):
                low = None
                y = linear(_thinned(rows, stay), (up @ down).to(dtype) / keep, bias).addmm_(rows, W.to(dtype).mT)
            else:
                low = linear(_thinned(rows, stay), down.to(dtype) / keep)  # (N, d)
                y = linear(rows, W.to(dtype), bias).addmm_(low, up.to(dtype).mT)
        ctx.save_for_backward(x, W, down, up, stay, low)
        ctx.keep = keep
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, W, down, up, stay, low = ctx.saved_tensors
        grad = _rows(grad)
        thinned = _thinned(_rows(x).to(grad.dtype), stay)
        if low is None:
            d_weight = (grad.mT @ thinned).to(up.dtype) / ctx.keep
            d_up, d_down = d_weight @ down.mT, up.mT @ d_weight
            d_branch, factor = grad, up @ down
        else:
            d_branch, factor = grad @ up.to(grad.dtype), down  # (N, d)
            d_up = (grad.mT @ low).to(up.dtype)
            d_down = (d_branch.mT @ thinned).to(down.dtype) / ctx.keep
        del thinned
        dx = d_bias = None
        if ctx.needs_input_grad[0]:
            dx = d_branch @ (factor.to(grad.dtype) / ctx.keep)
            if stay is not None:
                dx.mul_(stay)
            dx = dx.addmm_(grad, W.to(grad.dtype)).view(x.shape).to(x.dtype)
        if ctx.needs_input_grad[2]:
            d_bias = grad.sum(0)
        return dx, None, d_bias, d_down, d_up, None


class ProductNorm(torch.autograd.Function):
    """||X Y||_F, whose product is formed again in the backward pass instead of kept. Its gradient at X Y = 0 is 0."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, Y: Tensor) -> Tensor:
        norm = torch.linalg.matrix_norm(X @ Y)
        ctx.save_for_backward(X, Y, norm)
        return norm

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        X, Y, norm = ctx.saved_tensors
        scaled = (X @ Y).mul_(torch.where(norm > 0, grad / norm, 0))
        return scaled @ Y.mT, X.mT @ scaled


def dropout(x: Tensor, keep: float) -> Tensor:
    """x with each element kept with probability `keep`, then divided by it, or made 0; as `LowRankLinear` does it."""
    if keep == 1:
        return x
    stay, keep = _draw(x, keep)
    return x * stay.to(x.dtype).div_(keep)


def _compute_dtype(x: Tensor) -> torch.dtype:
    """What a linear layer computes `x` in: autocast's type where autocast is on."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


def _with_core(z: Tensor, top: Tensor, block: Tensor | None, factor: Tensor) -> tuple[Tensor, Tensor]:
    """Two matrices, z (N, r) and factor (m, r), one of them with the core: `linear` of them is z core^T factor^T."""
    if len(z) <= len(factor):
        return _times_core(z, top, block), factor
    return z, _times_core(factor, top, _transposed(block))


def _transposed(block: Tensor | None) -> Tensor | None:
    return None if block is None else block.mT


def _times_core(z: Tensor, top: Tensor, block: Tensor | None) -> Tensor:
    """core z for every row of z (N, r), each half written once into its place."""
    if block is None:
        return z * top.to(z.dtype)
    k = top.shape[0]
    out = torch.empty_like(z)
    torch.mul(z[:, :k], top.to(z.dtype), out=out[:, :k])
    torch.mm(z[:, k:], block.to(z.dtype).mT, out=out[:, k:])
    return out


def _product_is_cheaper(positions: int, down: Tensor, up: Tensor) -> bool:
    """Compares multiplications of a training step with the weight up down (out, in) and with its factors.

    Both: forward, gradient of x and their own. The weight is formed in each pass, and its gradient goes to each factor.
    """
    (rank, inside), out = down.shape, len(up)
    return 3 * positions * out * inside + 4 * rank * out * inside < 3 * positions * rank * (out + inside)


def _draw(x: Tensor, keep: float) -> tuple[Tensor, float]:
    """Which elements of x stay (int8, 1 or 0), each with probability `keep`, and that rounded to 1/65536.

    16 random bits an element: on a CPU they take a fifth of the time of `bernoulli_`.
    """
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64, device=x.device).random_(-(2**63), None)
    fallen = min(round((1 - keep) * 2**16), 2**16 - 1)  # some are to stay
    stay = words.view(torch.int16)[: x.numel()].view(x.shape) >= fallen - 2**15
    return stay.view(torch.int8), 1 - fallen / 2**16


def _thinned(x: Tensor, stay: Tensor | None) -> Tensor:
    """Dropout of a given choice, unscaled: by a product, which a CPU vectorizes for int8 and not for bool."""
    return x if stay is None else stay.to(x.dtype).mul_(x)
