"""LoRA: a low-rank update beside the frozen weight."""

import torch
from torch import Tensor, nn

from .base import Adaptable, AdaptedLayer, AdapterError
from .ranks import Ranks


class LoRALayer(AdaptedLayer):
    """y = W x + b + up(down(dropout(x))), down (d, in) and up (out, d) trainable.

    At the start down is normal with standard deviation 1/d and up is zero, so that the layer equals the wrapped one.
    For a convolution, down has the kernel of the wrapped layer and up is 1 x 1.
    Source: Hu et al., ICLR 2022 (arXiv 2106.09685), with the scale 1 that SALT's experiments use.
    """

    weight: Tensor

    def __init__(
        self, layer: Adaptable, rank: int, dropout: float = 0.1, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(layer)
        if self._conv_options.get("groups", 1) > 1:
            raise AdapterError("LoRA does not adapt grouped convolutions")
        # Not saved with the adapter, since the base checkpoint holds it.
        self.register_buffer("weight", layer.weight.detach(), persistent=False)
        self.down = nn.Parameter(self.weight.new_empty(rank, self.in_features))
        self.up = nn.Parameter(self.weight.new_zeros(self.out_features, rank))
        self.dropout = nn.Dropout(dropout)
        if rank:
            with torch.no_grad():
                self.down.normal_(0, 1 / rank, generator=generator)

    @classmethod
    def build(
        cls, layer: Adaptable, ranks: Ranks, lora_dropout: float = 0.1, generator: torch.Generator | None = None
    ) -> "LoRALayer":
        """The layer around `layer` with the LoRA rank of `ranks`."""
        return cls(layer, ranks.r_lora, lora_dropout, generator)

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        return {"down": self.down, "up": self.up}

    @property
    def ranks(self) -> dict[str, int]:
        return {"r_lora": self.up.shape[1]}

    def merged_weight(self) -> Tensor:
        return self.weight + (self.up @ self.down).reshape(self.weight_shape)

    def _adapted_forward(self, x: Tensor) -> Tensor:
        y = self.apply_weight(x, self.weight)
        if self.up.shape[1] == 0:
            return y
        low = self._linear_or_conv(self.dropout(x), self.down.reshape(-1, *self.weight_shape[1:]))
        return y + self._pointwise(low, self.up)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rank={self.up.shape[1]}"
