"""The blocks of SAM's image encoder, rearranged for speed; the weights' names stay SAM's own."""

from collections.abc import Callable
from typing import TypeVar

import torch
from segment_anything.modeling.image_encoder import Attention, Block
from torch import Tensor, nn

from networks.recompute import remade, remakes
from prompt_adapted_segment_anything.relative_attention import attend

Result = TypeVar("Result")


class EncoderBlock(nn.Module):
    """A transformer block of SAM's ViT: equal to segment_anything's `Block` up to rounding, in less time and memory.

    The attention with decomposed relative positions runs in PyTorch's fused kernel (see `attend`). And where windows do
    not divide the grid, only real tokens are projected and ask: the stock block pads with zeros after norm1, so a
    padding token's k and v are just the projection's bias, and what it asks is thrown away.

    What can be made again at next to no cost is not kept for the backward pass.
    """

    def __init__(self, stock: Block) -> None:
        super().__init__()
        self.norm1 = stock.norm1
        self.attn: Attention = stock.attn
        self.norm2 = stock.norm2
        self.mlp = stock.mlp
        self.window_size = stock.window_size
        self._stock = (stock,)  # in a tuple, so that the modules they share have one name

    @property
    def stock(self) -> Block:
        """The package's own block, of the same modules."""
        return self._stock[0]

    @property
    def mlp_layers(self) -> tuple[nn.Module, nn.Module]:
        """The linear layers before and after the activation."""
        return self.mlp.lin1, self.mlp.lin2

    @property
    def rel_pos(self) -> tuple[Tensor, Tensor] | None:
        """The tables of relative positions along height and width, if there are any."""
        return (self.attn.rel_pos_h, self.attn.rel_pos_w) if self.attn.use_rel_pos else None

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, H, W, C) -> (B, H, W, C)."""
        if torch.onnx.is_in_onnx_export():
            return self.stock(x)  # its tracer knows no functions with gradients of their own
        x = x.contiguous()  # the first is a view of (B, C, H, W), an order that sums would keep and each norm copy
        x = self._after_attention(x)
        return x + self._mlp(x)

    def _mlp(self, x: Tensor) -> Tensor:
        first, last = self.mlp_layers
        hidden = self._layer_after(self.norm2, first, x)
        return self._layer_after(self.mlp.act, last, hidden)

    def _layer_after(self, function: nn.Module, layer: Callable[[Tensor], Result], x: Tensor) -> Result:
        """layer(function(x)); what the layer keeps of its input is made of x again, which the function keeps anyway."""
        y = function(x)
        if not remakes():
            return layer(y)
        with remade([y], lambda: [function(x)]):
            return layer(y)

    def _after_attention(self, x: Tensor) -> Tensor:
        """The first half of the block, (B, H, W, C) -> (B, H, W, C)."""
        return x + self._attention(self._layer_after(self.norm1, self.attn.qkv, x))

    def _attention(self, qkv: Tensor, stride: tuple[int, int] = (1, 1)) -> Tensor:
        """(B, H, W, 3 * C) -> (B, H / stride, W / stride, C)."""
        H, W = qkv.shape[1:3]
        window = (self.window_size or H, self.window_size or W)
        out = attend(qkv, self.attn.num_heads, window, self.attn.qkv.bias, self.rel_pos, stride)
        return self.attn.proj(out)
