"""LoRA: a low-rank update beside the frozen weight."""

import torch

from .low_rank import LowRankLayer


class LoRALayer(LowRankLayer):
    """y = W x + b + scale * up(down(dropout(x))), down (d, in) and up (out, d) trainable.

    The scale is alpha / d; without an alpha it is 1, as in SALT's experiments. At the start down is normal with
    standard deviation 1/d and up is zero, so that the layer equals the wrapped one.
    For a convolution, down has the kernel of the wrapped layer and up is 1 x 1. Grouped ones are refused.
    Source: Hu et al., ICLR 2022 (arXiv 2106.09685).
    """

    def _start(self, generator: torch.Generator | None) -> None:
        self.down.normal_(0, 1 / self.down.shape[0], generator=generator)
