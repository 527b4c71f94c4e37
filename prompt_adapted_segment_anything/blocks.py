"""The transformer block of SAM's image encoder, with a fused attention kernel."""

import torch
from segment_anything.modeling.image_encoder import Block, get_rel_pos, window_partition, window_unpartition
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from adapters import AdaptedLayer

_HEAD_ALIGNMENT = 8  # fused kernels want the head dimension to be a multiple of this


class EncoderBlock(nn.Module):
    """segment_anything's `Block` up to rounding, with the modules and parameter names of the block that it is given.

    Two things differ from the stock block. Attention runs in `scaled_dot_product_attention`, so that no matrix of all
    pairs of tokens is stored. And windows are padded after the projection to q, k and v instead of before it: the
    stock block's padding tokens are zeros, which the projection maps to its bias.
    """

    def __init__(self, stock: Block) -> None:
        super().__init__()
        self.norm1, self.attn = stock.norm1, stock.attn
        self.norm2, self.mlp = stock.norm2, stock.mlp
        self.window_size = stock.window_size  # 0: attention over the whole grid

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, H, W, C) -> (B, H, W, C)."""
        x = x.contiguous()  # the patch embedding's output is a view of (B, C, H, W), which LayerNorm would copy
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def attention(self, x: Tensor) -> Tensor:
        """Multi-head attention in windows, or over the whole grid: (B, H, W, C) -> (B, H, W, C)."""
        H, W = x.shape[1:3]
        attn, window = self.attn, self.window_size
        rel_pos = (attn.rel_pos_h, attn.rel_pos_w) if attn.use_rel_pos else None
        qkv = attn.qkv(x)  # (B, H, W, 3 * C)
        if window == 0:
            return attn.proj(attend(qkv, attn.num_heads, rel_pos))
        fill = attn.qkv.output_at_zero() if isinstance(attn.qkv, AdaptedLayer) else attn.qkv.bias
        qkv = pad_with(fill, qkv, -H % window, -W % window)
        windows, padded_size = window_partition(qkv, window)  # (B * windows, window, window, 3 * C)
        out = attend(windows, attn.num_heads, rel_pos)
        return attn.proj(window_unpartition(out, window, padded_size, (H, W)))


def pad_with(fill: Tensor | None, x: Tensor, below: int, right: int) -> Tensor:
    """Pads a grid x (B, H, W, C) by rows below and columns at the right of `fill` (C,), or of zeros."""
    B, H, W, C = x.shape
    if not (below or right):
        return x
    fill = x.new_zeros(C) if fill is None else fill.to(x.dtype)
    x = torch.cat([x, fill.expand(B, H, right, -1)], dim=2)
    return torch.cat([x, fill.expand(B, below, W + right, -1)], dim=1)


def attend(qkv: Tensor, num_heads: int, rel_pos: tuple[Tensor, Tensor] | None) -> Tensor:
    """softmax(q k^T / sqrt(d) + Rh + Rw) v among the tokens of each grid, without a bias of the size queries x keys.

    The logits are one inner product of longer vectors: of q followed by its relative terms for each row and each
    column of keys, and of k followed by the one-hot codes of its row and its column.

    Args:
        qkv: (N, h, w, 3 * C), the projections of N grids.
        num_heads: of d = C / num_heads channels each.
        rel_pos: SAM's tables of relative positions along height and width, (any length, d), or None.

    Returns:
        (N, h, w, C).
    """
    N, h, w, _ = qkv.shape
    q, k, v = qkv.reshape(N, h * w, 3, num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)  # each (N, heads, h * w, d)
    d = q.shape[-1]
    if rel_pos is not None:
        zeros = -(d + h + w) % _HEAD_ALIGNMENT
        terms = _relative_terms(q.unflatten(2, (h, w)), *rel_pos).flatten(2, 3)  # (N, heads, h * w, h + w)
        q = torch.cat([q, pad(terms, (0, zeros))], dim=-1)
        k = torch.cat([k, pad(_one_hot_codes(h, w, k), (0, zeros)).expand(N, num_heads, -1, -1)], dim=-1)
        v = pad(v, (0, h + w + zeros))  # fused kernels want q, k and v of one width
    out = scaled_dot_product_attention(q, k, v, scale=d**-0.5)[..., :d]
    return out.transpose(1, 2).reshape(N, h, w, -1)


def _relative_terms(q: Tensor, rel_pos_h: Tensor, rel_pos_w: Tensor) -> Tensor:
    """SAM's relative terms for each row, then each column of keys: (N, heads, h, w, d) -> (N, heads, h, w, h + w)."""
    h, w, d = q.shape[2:]
    scale = d**0.5  # undoes the kernel's scaling of all logits
    rel_h = torch.einsum("nmhwd,hkd->nmhwk", q, scale * get_rel_pos(h, h, rel_pos_h))
    rel_w = torch.einsum("nmhwd,wkd->nmhwk", q, scale * get_rel_pos(w, w, rel_pos_w))
    return torch.cat([rel_h, rel_w], dim=-1)


def _one_hot_codes(h: int, w: int, like: Tensor) -> Tensor:
    """The row and the column of each token of a grid as one-hot codes: (h * w, h + w)."""
    rows, columns = (torch.eye(size, dtype=like.dtype, device=like.device) for size in (h, w))
    return torch.cat([rows.repeat_interleave(w, dim=0), columns.repeat(h, 1)], dim=-1)
