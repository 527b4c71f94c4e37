"""The blocks of SAM2's trunk, rearranged for speed as SAM's are; the weights' names stay SAM2's own."""

from sam2.modeling.backbones.hieradet import MultiScaleBlock
from sam2.modeling.backbones.utils import window_partition, window_unpartition
from torch import Tensor, nn

from networks.recompute import computed_again, remakes
from prompt_adapted_segment_anything.blocks import EncoderBlock
from prompt_adapted_segment_anything.pooling import pooled


class TrunkBlock(EncoderBlock):
    """A block of SAM2's Hiera without dropped paths, equal to the package's `MultiScaleBlock` up to rounding.

    It has no relative positions. Where windows divide the grid, it arranges its tokens by windows before it projects
    them, as the package does; elsewhere it pads as SAM's block does. The first block of a later stage changes the width
    and halves the grid, which is to be even: its queries are maxima over 2 x 2 tokens.

    The backward pass may compute the halves of a block again. On fine grids, of many tokens and few channels, that
    takes little time for much memory: an element of a layer's output takes as many multiplications as it has inputs.
    Where a layer has dropout, whose masks would have to be drawn again, it takes more and is not done.

    Args:
        stock: the package's block.
        attention_again: of the first half, up to the sum with its input, nothing but the input is kept.
        mlp_again: neither is what lies between the second norm and the last layer.
    """

    rel_pos = None

    def __init__(self, stock: MultiScaleBlock, attention_again: bool = False, mlp_again: bool = False) -> None:
        super().__init__(stock)
        self.attention_again, self.mlp_again = attention_again, mlp_again
        self.stride: tuple[int, int] = stock.q_stride or (1, 1)
        if stock.q_stride:
            self.proj = stock.proj

    @property
    def mlp_layers(self) -> tuple[nn.Module, nn.Module]:
        return tuple(self.mlp.layers)

    def _after_attention(self, x: Tensor) -> Tensor:
        if self.attention_again and self._may_compute_again():
            return computed_again(self._after_attention, x)  # in which nothing else is remade
        grid, size, stride = x.shape[1:3], self.window_size, self.stride
        by_windows = size > 0 and all(length % size == 0 for length in grid)

        def normed(x: Tensor) -> Tensor:
            x = self.norm1(x)
            return window_partition(x, size)[0] if by_windows else x

        def on_grid(x: Tensor) -> Tensor:
            hw = [length // step for length, step in zip(grid, stride, strict=True)]
            return window_unpartition(x, size // stride[0], hw, hw) if by_windows else x

        if stride == (1, 1):
            return x + on_grid(self._attention(self._layer_after(normed, self.attn.qkv, x)))
        shortcut, qkv = self._layer_after(normed, lambda y: (self.proj(y), self.attn.qkv(y)), x)
        return on_grid(pooled(shortcut, stride) + self._attention(qkv, stride))

    def _mlp(self, x: Tensor) -> Tensor:
        if not (self.mlp_again and self._may_compute_again()):
            return super()._mlp(x)
        first, last = self.mlp_layers
        return last(computed_again(lambda x: self.mlp.act(first(self.norm2(x))), x))

    def _may_compute_again(self) -> bool:
        return remakes() and not any(getattr(layer, "dropout", 0) for layer in self.modules())
