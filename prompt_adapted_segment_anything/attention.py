"""The blocks of SAM's image encoder, rearranged for speed; the weights' names stay SAM's own."""

from dataclasses import dataclass

import torch
from segment_anything.modeling.image_encoder import Attention, Block, get_rel_pos
from torch import Tensor, nn

from prompt_adapted_segment_anything.relative_attention import Heads, attend
from prompt_adapted_segment_anything.remade import remade, remakes


@dataclass(frozen=True)
class Band:
    """Windows side by side along one axis of the grid: `count` of them, each with `inside` real tokens."""

    count: int
    inside: int

    @property
    def length(self) -> int:
        """Real tokens of all its windows."""
        return self.count * self.inside


class EncoderBlock(nn.Module):
    """A transformer block of SAM's ViT: equal to segment_anything's `Block` up to rounding, in less time and memory.

    The attention with decomposed relative positions runs in PyTorch's fused kernel (see `attend`). And where windows do
    not divide the grid, only real tokens are projected and ask: the stock block pads with zeros after norm1, so a
    padding token's k and v are just the projection's bias, and what it asks is thrown away.

    `lean` keeps only q, k, v and the attention's output for the backward pass; it is to be False where something else
    decides what is kept.
    """

    def __init__(self, stock: Block) -> None:
        super().__init__()
        self.norm1 = stock.norm1
        self.attn: Attention = stock.attn
        self.norm2 = stock.norm2
        self.mlp = stock.mlp
        self.window_size = stock.window_size
        self.lean = True

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, H, W, C) -> (B, H, W, C)."""
        x = x + self._attention(x)
        hidden = self._layer_after(self.norm2, self.mlp.lin1, x)
        return x + self._layer_after(self.mlp.act, self.mlp.lin2, hidden)

    def _layer_after(self, function: nn.Module, layer: nn.Module, x: Tensor) -> Tensor:
        """layer(function(x)); what the layer keeps of its input is made of x again, which the function keeps anyway."""
        y = function(x)
        if not (self.lean and remakes()):
            return layer(y)
        with remade([y], lambda: [function(x)]):
            return layer(y)

    def _attention(self, x: Tensor) -> Tensor:
        """x: (B, H, W, C) -> (B, H, W, C), norm1 included."""
        H, W = x.shape[1:3]
        window = (self.window_size or H, self.window_size or W)
        rel_pos = None
        if self.attn.use_rel_pos:
            tables = (self.attn.rel_pos_h, self.attn.rel_pos_w)
            rel_pos = tuple(get_rel_pos(size, size, table) for size, table in zip(window, tables, strict=True))
        rows, columns = _bands(H, window[0]), _bands(W, window[1])
        qkv = self._layer_after(self.norm1, self.attn.qkv, x)  # (B, H, W, 3 * C)
        # Splits, whose gradients are joined in one pass; a slice's would be padded with zeros and added.
        out = [
            _joined(
                [
                    self._attend(part, (row, column), window, rel_pos)
                    for part, column in zip(strip.split([band.length for band in columns], 2), columns, strict=True)
                ],
                dim=2,
            )
            for strip, row in zip(qkv.split([band.length for band in rows], 1), rows, strict=True)
        ]
        return self.attn.proj(_joined(out, dim=1))

    def _attend(
        self, qkv: Tensor, bands: tuple[Band, Band], window: tuple[int, int], rel_pos: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        """The windows of a band of rows and a band of columns: (B, h, w, 3 * C) -> (B, h, w, C), before proj."""
        B, h, w, C = *qkv.shape[:3], qkv.shape[3] // 3
        bias = None if self.attn.qkv.bias is None else self.attn.qkv.bias[C:]

        def heads() -> Heads:
            q, k_and_v = qkv.split((C, 2 * C), dim=-1)
            q = self._windows(q, bands, (bands[0].inside, bands[1].inside))
            k, v = _pad_with(k_and_v, bands, window, bias).chunk(2, dim=-1)
            return q, self._windows(k, bands, window), self._windows(v, bands, window)

        out = attend(heads, rel_pos, self.lean)  # (B, rows, columns, heads, h, w, d)
        return out.permute(0, 1, 4, 2, 5, 3, 6).reshape(B, h, w, C)

    def _windows(self, x: Tensor, bands: tuple[Band, Band], size: tuple[int, int]) -> Tensor:
        """(B, h, w, C) -> (B, rows of windows, columns of windows, heads, *size, C / heads), a view."""
        x = x.unflatten(3, (self.attn.num_heads, -1)).unflatten(2, (bands[1].count, size[1]))
        x = x.unflatten(1, (bands[0].count, size[0]))  # (B, rows, h, columns, w, heads, d)
        return x.permute(0, 1, 3, 5, 2, 4, 6)


def _bands(length: int, window: int) -> list[Band]:
    """The windows that fill an axis of `length` tokens: whole ones, then one that begins inside and ends outside."""
    whole = length // window
    rest = length - whole * window
    return ([Band(whole, window)] if whole else []) + ([Band(1, rest)] if rest else [])


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def _pad_with(x: Tensor, bands: tuple[Band, Band], window: tuple[int, int], fill: Tensor | None) -> Tensor:
    """Pads (B, h, w, C), the real tokens of windows, on the right and below to whole windows with the vector `fill`."""
    for dim, (band, size) in enumerate(zip(bands, window, strict=True), start=1):
        missing = size - band.inside  # only a band of one window lacks any
        if missing:
            shape = list(x.shape)
            shape[dim] = missing
            padding = x.new_zeros(shape) if fill is None else fill.to(x.dtype).expand(shape)
            x = torch.cat([x, padding], dim)
    return x
