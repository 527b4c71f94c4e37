"""The fused kernel's operands for windowed attention with decomposed relative positions, and their gradients.

Each is written in one pass: by way of views, concatenations and paddings, autograd would copy each several times.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from prompt_adapted_segment_anything.pooling import pooled, pooled_gradient
from prompt_adapted_segment_anything.windows import Part, parts

# Fused kernels want all three operands of one width, and that width a multiple of this.
_HEAD_ALIGNMENT = 8

Operands = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Layout:
    """For each part of a grid of tokens q, k and v, flat: (B * windows, heads, tokens, width).

    q has the real tokens of the windows, or their maxima over `stride` rows and columns; k and v have all tokens. The
    last axis holds d channels; then, with `relative` positions, one for each row and each column of the window: q's
    terms of the logits, k's one-hot codes; then zeros.
    """

    grid: tuple[int, int]
    window: tuple[int, int]
    heads: int
    d: int
    relative: bool
    stride: tuple[int, int]

    def __post_init__(self) -> None:
        pools = self.stride != (1, 1)
        uneven = any(n % s for size in (self.grid, self.window) for n, s in zip(size, self.stride, strict=True))
        if pools and (self.relative or uneven):
            raise ValueError(
                f"queries pooled by {self.stride} need a grid {self.grid} and windows {self.window} that this divides, "
                "without relative positions"
            )

    @property
    def parts(self) -> list[Part]:
        """Of the grid."""
        return parts(self.grid, self.window)

    @property
    def used(self) -> int:
        """Channels before the aligning zeros."""
        return self.d + (sum(self.window) if self.relative else 0)

    @property
    def width(self) -> int:
        """Channels of an operand."""
        return self.used + -self.used % _HEAD_ALIGNMENT

    def split(self, qkv: Tensor) -> tuple[Tensor, ...]:
        """(B, H, W, 3 * heads * d) -> q, k and v (B, H, W, heads, d), views."""
        return qkv.unflatten(3, (3, self.heads, self.d)).unbind(3)

    def terms(self, q: Tensor, axis: int) -> Tensor:
        """Of (..., width), the channels for the keys' rows (axis 0) or columns (1), a view."""
        return q[..., self.d : self.used].split(self.window, -1)[axis]

    def windows(self, flat: Tensor, part: Part, size: tuple[int, int]) -> Tensor:
        """(B * windows, heads, tokens, width) -> (B, window rows, window columns, heads, *size, width), a view."""
        return flat.unflatten(2, size).unflatten(0, (-1, part.rows.count, part.columns.count))

    def operands(self, part: Part, qkv: Tensor, bias: Tensor | None, *tables: Tensor) -> Operands:
        """q, k and v of a part.

        Args:
            part: one of `parts`.
            qkv: (B, H, W, 3 * heads * d).
            bias: (3 * heads * d,), what tokens outside the grid have; None for 0.
            tables: with `relative` positions, along height and width: (2 * size - 1, d); a query's product with row
                `key - query + size - 1` is its term for the key.
        """
        q, k, v = (part.of(each) for each in self.split(qkv))
        fills = (None, None, None) if bias is None else bias.view(3, self.heads, 1, 1, self.d)
        q = pooled(q, self.stride)
        q = self._widened(q, q.shape[-3:-1])
        k, v = (self._widened(x, self.window, fill) for x, fill in zip((k, v), fills[1:], strict=True))
        q[..., self.used :] = 0
        k[..., self.d :] = self._codes(k)
        v[..., self.d :] = 0  # multiplied by zeros, and still not to be left as NaN
        channels = q.view(-1, self.width)[:, : self.d]
        for axis, table in enumerate(tables):
            by_distance = (channels @ table.mT).view(*q.shape[:-1], -1)
            self.terms(q, axis).copy_(_by_key(by_distance, axis))
        return tuple(each.flatten(4, 5).flatten(0, 2) for each in (q, k, v))

    def _widened(self, x: Tensor, size: tuple[int, int], fill: Tensor | None = None) -> Tensor:
        """(..., h, w, d) -> (..., *size, width), `fill` where x ends; channels from d on are not set."""
        h, w = x.shape[-3:-1]
        wide = x.new_empty(*x.shape[:-3], *size, self.width)
        if (h, w) != size:
            wide[..., : self.d] = 0 if fill is None else fill
        wide[..., :h, :w, : self.d] = x
        return wide

    def _codes(self, k: Tensor) -> Tensor:
        """One-hot codes of each key's row and column, and zeros: (*window, width - d)."""
        codes = k.new_zeros(*self.window, self.width - self.d)
        if self.relative:
            rows, columns = (torch.eye(size, dtype=k.dtype, device=k.device) for size in self.window)
            codes[..., : len(rows)] = rows[:, None]
            codes[..., len(rows) : len(rows) + len(columns)] = columns
        return codes

    def write(self, tokens: Tensor, part: Part, flat: Tensor) -> None:
        """Write a part of queries (B, H, W, heads, d), then zeros, into `flat` (B * windows, heads, n, width)."""
        flat[..., self.d :] = 0
        asking = part.pooled(self.stride)
        self.windows(flat, asking, asking.inside)[..., : self.d] = asking.of(tokens)


class Extend(torch.autograd.Function):
    """(layout, qkv, bias, *tables) -> q, k and v of each part in turn; see `Layout.operands`."""

    @staticmethod
    def forward(ctx: Any, layout: Layout, qkv: Tensor, bias: Tensor | None, *tables: Tensor) -> tuple[Tensor, ...]:
        ctx.layout = layout
        ctx.save_for_backward(qkv, bias, *tables)
        return tuple(operand for part in layout.parts for operand in layout.operands(part, qkv, bias, *tables))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        layout, (qkv, bias, *tables) = ctx.layout, ctx.saved_tensors
        d_qkv = torch.empty_like(qkv)
        d_bias = torch.zeros_like(bias) if ctx.needs_input_grad[2] else None
        needed = ctx.needs_input_grad[3:]
        d_tables = [torch.zeros_like(table) if need else None for table, need in zip(tables, needed, strict=True)]
        for number, part in enumerate(layout.parts):
            dq, *d_keys = grads[3 * number : 3 * number + 3]
            to_q, *to_keys = (part.of(each) for each in layout.split(d_qkv))
            dq = layout.windows(dq, part, part.pooled(layout.stride).inside)
            to_q.copy_(pooled_gradient(part.of(layout.split(qkv)[0]), layout.stride, dq[..., : layout.d]))
            for axis, (table, d_table) in enumerate(zip(tables, d_tables, strict=True)):
                by_distance = dq.new_zeros(*dq.shape[:-1], len(table))
                _by_key(by_distance, axis).copy_(layout.terms(dq, axis))
                by_distance = by_distance.view(-1, len(table))
                to_q += (by_distance @ table).view(to_q.shape)
                if d_table is not None:
                    q = part.of(layout.split(qkv)[0]).reshape(-1, layout.d)
                    d_table.addmm_(by_distance.mT, q)
            h, w = part.inside
            for which, (to, flat) in enumerate(zip(to_keys, d_keys, strict=True), start=1):
                gradient = layout.windows(flat, part, layout.window)[..., : layout.d]
                to.copy_(gradient[..., :h, :w, :])
                if d_bias is not None:
                    for outside in (gradient[..., h:, :, :], gradient[..., :h, w:, :]):
                        d_bias.view(3, layout.heads, -1)[which] += outside.sum((0, 1, 2, 4, 5))
        return None, d_qkv, d_bias, *d_tables


class Join(torch.autograd.Function):
    """(layout, outputs of the parts (B * windows, heads, queries, width)) -> (B, *grid of queries, heads, d)."""

    @staticmethod
    def forward(ctx: Any, layout: Layout, *outputs: Tensor) -> Tensor:
        ctx.layout, ctx.shapes = layout, [out.shape for out in outputs]
        images = outputs[0].shape[0] // (layout.parts[0].rows.count * layout.parts[0].columns.count)
        grid = (length // stride for length, stride in zip(layout.grid, layout.stride, strict=True))
        joined = outputs[0].new_empty(images, *grid, layout.heads, layout.d)
        for part, out in zip(layout.parts, outputs, strict=True):
            asking = part.pooled(layout.stride)
            asking.of(joined).copy_(layout.windows(out, asking, asking.inside)[..., : layout.d])
        return joined

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        wide = [grad.new_empty(shape) for shape in ctx.shapes]
        for part, flat in zip(ctx.layout.parts, wide, strict=True):
            ctx.layout.write(grad, part, flat)
        return None, *wide


def _by_key(by_distance: Tensor, axis: int) -> Tensor:
    """What (..., h, w, 2 * size - 1), a tensor with memory of its own, holds for each key: (..., h, w, size), a view.

    Entry `key` is that at `key - query + size - 1`; the query is the index in h (axis 0) or in w (1).
    """
    size = (by_distance.shape[-1] + 1) // 2
    strides = list(by_distance.stride())
    strides[axis - 3] -= 1
    return by_distance.as_strided((*by_distance.shape[:-1], size), strides, size - 1)
