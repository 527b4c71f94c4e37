"""SSF: a scale and a shift of every output feature of the frozen layer."""

from typing import Self

import torch
from torch import Tensor, nn

from .base import Adaptable, AdaptedLayer
from .ranks import Ranks


class SSFLayer(AdaptedLayer):
    """y = scale * (W x + b) + shift, for each output feature or channel; scale and shift (out,) trainable.

    Merged: W~ = diag(scale) W, b~ = scale * b + shift. At the start they are 1 and 0, so that the layer equals the
    wrapped one (the authors' code draws them with a standard deviation of 0.02 around that).
    A layer without bias gets no shift: its merged layer could not hold it, and SAM's format has no place for it. The
    paper also has such a pair after each norm, where the norm's own scale and shift can take its place.
    Grouped convolutions are adapted too. The method has one size.
    Source: Lian et al., NeurIPS 2022 (arXiv 2210.08823).
    """

    weight: Tensor

    def __init__(self, layer: Adaptable) -> None:
        super().__init__(layer)
        # Not saved with the adapter, since the base checkpoint holds it.
        self.register_buffer("weight", layer.weight.detach(), persistent=False)
        self.scale = nn.Parameter(self.weight.new_ones(self.out_features))
        self.shift = None if self.bias is None else nn.Parameter(self.weight.new_zeros(self.out_features))

    @classmethod
    def build(cls, layer: Adaptable, ranks: Ranks) -> Self:
        """The layer around `layer`; there are no ranks."""
        return cls(layer)

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        return {"scale": self.scale} if self.shift is None else {"scale": self.scale, "shift": self.shift}

    def merged_weight(self) -> Tensor:
        return self.weight * self.scale.reshape(-1, *[1] * (self.weight.dim() - 1))

    def output_at_zero(self) -> Tensor | None:
        return None if self.bias is None or self.shift is None else torch.addcmul(self.shift, self.scale, self.bias)

    def _adapted_forward(self, x: Tensor) -> Tensor:
        y = self._linear_or_conv(x, self.weight, self.bias)
        y = y * self._channels(self.scale).to(y.dtype)
        return y if self.shift is None else y + self._channels(self.shift).to(y.dtype)
