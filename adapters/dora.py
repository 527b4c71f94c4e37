"""DoRA: magnitude and direction of each row of the weight, the direction updated by LoRA."""

import torch
from torch import Tensor, nn

from .base import Adaptable
from .low_rank import LowRankLayer


class DoRALayer(LowRankLayer):
    """W~ = diag(m / n) (W + scale * up down), n (out,) the norms of the rows of W + scale * up down.

    Trainable are m (out,), at the start the norms of W's rows, and LoRA's up and down. The norms n are constants in the
    gradient (the paper's section 4.3). Under dropout in training, as in the authors' code and Hugging Face peft,
    y = W x + b + (m / n - 1) W x' + m / n * scale * up(down(x')) with x' = dropout(x).
    down starts Kaiming-uniform and up as zero, so that the layer equals the wrapped one.
    A convolution's kernel (in, kh, kw) of one output counts as a row. Grouped ones are refused.
    Source: Liu et al., ICML 2024 (arXiv 2402.09353).
    """

    def __init__(
        self,
        layer: Adaptable,
        rank: int,
        dropout: float = 0.1,
        generator: torch.Generator | None = None,
        alpha: float | None = None,
    ) -> None:
        super().__init__(layer, rank, dropout, generator, alpha)
        self.magnitude = nn.Parameter(_row_norms(self.weight))

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        return {**super().adapter_parameters(), "magnitude": self.magnitude}

    def merged_weight(self) -> Tensor:
        direction = super().merged_weight()
        return direction * (self.magnitude / _row_norms(direction)).reshape(-1, *[1] * (direction.dim() - 1))

    def _adapted_forward(self, x: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast(self._device_type, enabled=False):
            norms = _row_norms(super().merged_weight())
        base = self._linear_or_conv(x, self.weight)
        factor = self._channels(self.magnitude / norms).to(base.dtype)
        dropped = self.dropout(x)
        changed = self._linear_or_conv(dropped, self.weight) if self.training and self.dropout.p else base
        y = factor * (changed + self._update(dropped) if self.up.shape[1] else changed)
        y = y if changed is base else y + base - changed
        return y if self.bias is None else y + self._channels(self.bias).to(y.dtype)


def _row_norms(weight: Tensor) -> Tensor:
    """The norms of a weight's rows (out,), without a gradient."""
    norms = torch.linalg.vector_norm(weight.detach().flatten(1), dim=1)
    return norms.clamp_min(torch.finfo(norms.dtype).tiny)  # a row of zeros has no direction, and stays one of zeros
