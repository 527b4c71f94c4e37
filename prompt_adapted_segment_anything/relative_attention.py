"""Attention with SAM's decomposed relative positions, in PyTorch's fused kernels."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from prompt_adapted_segment_anything.remade import remade, remakes

# Fused kernels want all three operands of one width, and that width a multiple of this.
_HEAD_ALIGNMENT = 8

Heads = tuple[Tensor, Tensor, Tensor]


def attend(heads: Callable[[], Heads], rel_pos: tuple[Tensor, Tensor] | None = None, lean: bool = True) -> Tensor:
    """Attention from a grid of queries to a grid of keys, without a bias of the size queries x keys.

    The logits q.k / sqrt(d) + Rh[q, kh] + Rw[q, kw] are one inner product, of q extended by its rows of Rh
    and Rw and of k extended by one-hot codes of its row and column.

    Args:
        heads: gives q (..., n, h, w, d), k and v (..., n, H, W, d), n heads each. The queries are those of the keys'
            grid in its first h rows and w columns.
        rel_pos: tables (H, H, d) and (W, W, d) indexed [query, key], or None.
        lean: the backward pass calls `heads` and extends its tensors again, so that only what `heads` refers to, the
            output and its log-sum-exp stay in memory.

    Returns:
        (..., n, h, w, d).
    """
    q, k, v = heads()
    if rel_pos is None:
        return _fused(_flat(q), _flat(k), _flat(v), q)
    extended = _extend(q, k, v, *rel_pos)
    if not (lean and remakes()):
        return _fused(*extended, q)
    with remade(extended, lambda: _extend(*heads(), *rel_pos), padding=extended[0].shape[-1] - q.shape[-1]):
        return _fused(*extended, q)


def _fused(q: Tensor, k: Tensor, v: Tensor, queries: Tensor) -> Tensor:
    """Of flat grids (B, n, tokens, extended d); scaled and shaped as `queries` (..., n, h, w, d) says."""
    d = queries.shape[-1]
    out = scaled_dot_product_attention(q, k, v, scale=d**-0.5)
    return out[..., :d].reshape(queries.shape)


def _flat(grid: Tensor) -> Tensor:
    """(..., n, h, w, d) -> (B, n, h * w, d)."""
    return grid.reshape(-1, grid.shape[-4], grid.shape[-3] * grid.shape[-2], grid.shape[-1])


def _extend(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Heads:
    """q, k and v as flat grids (B, n, tokens, d + H + W + alignment); arguments as in `attend`."""
    (h, w, d), (H, W) = q.shape[-3:], k.shape[-3:-1]
    # The kernel multiplies all logits by d**-0.5.
    rel_h, rel_w = (table.to(q.dtype) * d**0.5 for table in (rel_h[:h], rel_w[:w]))
    by_row = torch.einsum("...hwd,hkd->...hwk", q, rel_h)  # (..., n, h, w, H)
    by_column = torch.einsum("...hwd,wkd->...hwk", q, rel_w)  # (..., n, h, w, W)
    spare = -(d + H + W) % _HEAD_ALIGNMENT
    q = torch.cat([q, by_row, by_column, q.new_zeros(*q.shape[:-1], spare)], dim=-1)
    row_code = torch.eye(H, dtype=k.dtype, device=k.device)[:, None].expand(-1, W, -1)  # (H, W, H)
    column_code = torch.eye(W, W + spare, dtype=k.dtype, device=k.device).expand(H, -1, -1)  # (H, W, W + spare)
    codes = torch.cat([row_code, column_code], dim=-1).expand(*k.shape[:-1], -1)
    k = torch.cat([k, codes], dim=-1)
    return _flat(q), _flat(k), _flat(pad(v, (0, H + W + spare)))
