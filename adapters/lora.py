"""LoRA: a low-rank update beside the frozen weight."""

import torch
from torch import Tensor, nn

from adapters.base import Adaptable, AdaptedLayer, AdapterError
from adapters.factorized import LowRankLinear, dropout
from adapters.ranks import Ranks


class LoRALayer(AdaptedLayer):
    """y = W x + b + up(down(dropout(x))) with down (d, in) normal of standard deviation 1/d and up (out, d) zero
    at the start.

    For a convolution, down has the kernel of the wrapped layer and up is 1 x 1. Source: Hu et al., ICLR 2022
    (arXiv 2106.09685), with the scale 1 that SALT's experiments use. At the start the layer equals the wrapped one.
    """

    method = "lora"
    weight: Tensor

    def __init__(
        self, layer: Adaptable, rank: int, dropout: float = 0.1, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(layer)
        if self._conv_options.get("groups", 1) > 1:
            raise AdapterError("LoRA does not adapt grouped convolutions")
        # A buffer outside the state: the base checkpoint has it, and no optimizer may touch it.
        self.register_buffer("weight", layer.weight.detach(), persistent=False)
        self.down = nn.Parameter(self.weight.new_empty(rank, self.in_features))
        self.up = nn.Parameter(self.weight.new_zeros(self.out_features, rank))
        self.dropout = dropout
        if rank:
            with torch.no_grad():
                self.down.normal_(0, 1 / rank, generator=generator)

    @classmethod
    def build(
        cls, layer: Adaptable, ranks: Ranks, dropout: float = 0.1, generator: torch.Generator | None = None
    ) -> "LoRALayer":
        """The layer around `layer` with the LoRA rank of `ranks`."""
        return cls(layer, ranks.r_lora, dropout, generator)

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        return {"down": self.down, "up": self.up}

    def merged_weight(self) -> Tensor:
        return self.weight + (self.up @ self.down).reshape(self.weight_shape)

    def _adapted_forward(self, x: Tensor) -> Tensor:
        if self.up.shape[1] == 0:
            return self.apply_weight(x, self.weight)
        keep = 1 - self.dropout if self.training else 1.0
        if not self.is_conv:
            return LowRankLinear.apply(x, self.weight, self.bias, self.down, self.up, keep)
        low = self._convolve(dropout(x, keep), self.down.reshape(-1, *self.weight_shape[1:]), None)
        return self.apply_weight(x, self.weight) + nn.functional.conv2d(low, self.up[:, :, None, None])

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rank={self.up.shape[1]}, dropout={self.dropout}"
