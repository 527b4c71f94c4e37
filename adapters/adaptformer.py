"""AdaptFormer: a bottleneck with a ReLU beside the frozen layer."""

from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from .base import Adaptable, AdaptedLayer, AdapterError
from .ranks import Ranks

SCALE = 0.1


class AdaptFormerLayer(AdaptedLayer):
    """y = W x + b + 0.1 * (up ReLU(down x + b_down) + b_up), down (d, in) and up (out, d) and their biases trainable.

    down starts Kaiming-uniform, the rest zero, so that the layer equals the wrapped one.
    The paper puts the bottleneck beside a block's whole MLP; here it is beside each adapted layer, as LoRA is, and d is
    LoRA's rank. For a convolution, down has the kernel of the wrapped layer and up is 1 x 1. Grouped ones are refused.
    ReLU stands between the factors, so that no weight holds both: the layer cannot be merged, and a merged model keeps
    it as it is.
    Why this one and not Conv-LoRA (Zhong et al., ICLR 2024): bottlenecks of this kind are what the known adaptations of
    SAM to medical images add: the Medical SAM Adapter (arXiv 2304.12620), SAM-Med2D (2308.16184), MA-SAM (2309.08842),
    3DSAM-adapter (2306.13465).
    Source: Chen et al., NeurIPS 2022 (arXiv 2205.13535).
    """

    mergeable: ClassVar[bool] = False
    weight: Tensor

    def __init__(self, layer: Adaptable, rank: int, generator: torch.Generator | None = None) -> None:
        super().__init__(layer)
        if self._conv_options.get("groups", 1) > 1:
            raise AdapterError("AdaptFormer does not adapt grouped convolutions")
        # Not saved with the adapter, since the base checkpoint holds it.
        self.register_buffer("weight", layer.weight.detach(), persistent=False)
        self.down = nn.Parameter(self.weight.new_empty(rank, self.in_features))
        self.down_bias = nn.Parameter(self.weight.new_zeros(rank))
        self.up = nn.Parameter(self.weight.new_zeros(self.out_features, rank))
        self.up_bias = nn.Parameter(self.weight.new_zeros(self.out_features))
        if rank:
            nn.init.kaiming_uniform_(self.down, a=5**0.5, generator=generator)

    @classmethod
    def build(cls, layer: Adaptable, ranks: Ranks, generator: torch.Generator | None = None) -> Self:
        """The layer around `layer` with a bottleneck of the LoRA rank of `ranks`."""
        return cls(layer, ranks.r_lora, generator)

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        return {"down": self.down, "down_bias": self.down_bias, "up": self.up, "up_bias": self.up_bias}

    def output_at_zero(self) -> Tensor:
        bottleneck = SCALE * (self.up @ torch.relu(self.down_bias) + self.up_bias)
        return bottleneck if self.bias is None else self.bias + bottleneck

    def _adapted_forward(self, x: Tensor) -> Tensor:
        y = self._linear_or_conv(x, self.weight, self.bias)
        if self.up.shape[1] == 0:
            return y + SCALE * self._channels(self.up_bias).to(y.dtype)
        hidden = self._linear_or_conv(x, self.down.reshape(-1, *self.weight_shape[1:]), self.down_bias)
        return y + SCALE * self._pointwise(torch.relu(hidden), self.up, self.up_bias)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rank={self.up.shape[1]}"
