"""A layer with a low-rank update beside its frozen weight: the base of LoRA and of the methods that vary it."""

from typing import Self

import torch
from torch import Tensor, nn

from .base import Adaptable, AdaptedLayer, AdapterError
from .ranks import Ranks


class LowRankLayer(AdaptedLayer):
    """y = W x + b + scale * up(down(dropout(x))), down (d, in) and up (out, d) trainable.

    The scale is alpha / d, and 1 where no alpha is given. up starts as zero, and down Kaiming-uniform unless a subclass
    overrides `_start`.
    For a convolution, down has the kernel of the wrapped layer and up is 1 x 1. Grouped ones are refused.
    """

    weight: Tensor

    def __init__(
        self,
        layer: Adaptable,
        rank: int,
        dropout: float = 0.1,
        generator: torch.Generator | None = None,
        alpha: float | None = None,
    ) -> None:
        super().__init__(layer)
        if self._conv_options.get("groups", 1) > 1:
            name = type(self).__name__.removesuffix("Layer")
            raise AdapterError(f"{name} does not adapt grouped convolutions")
        # Not saved with the adapter, since the base checkpoint holds it.
        self.register_buffer("weight", layer.weight.detach(), persistent=False)
        self.down = nn.Parameter(self.weight.new_empty(rank, self.in_features))
        self.up = nn.Parameter(self.weight.new_zeros(self.out_features, rank))
        self.dropout = nn.Dropout(dropout)
        self.scale = self._scale(rank, alpha) if rank else 1.0
        if rank:
            with torch.no_grad():
                self._start(generator)

    @classmethod
    def build(
        cls,
        layer: Adaptable,
        ranks: Ranks,
        lora_dropout: float = 0.1,
        generator: torch.Generator | None = None,
        lora_alpha: float | None = None,
    ) -> Self:
        """The layer around `layer` with the LoRA rank of `ranks`."""
        return cls(layer, ranks.r_lora, lora_dropout, generator, lora_alpha)

    @staticmethod
    def _scale(rank: int, alpha: float | None) -> float:
        return 1.0 if alpha is None else alpha / rank

    def _start(self, generator: torch.Generator | None) -> None:
        """Starts down; the rank is not 0. Kaiming-uniform, as LoRA's own code does."""
        nn.init.kaiming_uniform_(self.down, a=5**0.5, generator=generator)

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        return {"down": self.down, "up": self.up}

    def scaled_up(self) -> Tensor:
        """(out, d), with which the update of the weight is `scaled_up() @ down`."""
        return self.up if self.scale == 1 else self.scale * self.up

    def merged_weight(self) -> Tensor:
        return self.weight + (self.scaled_up() @ self.down).reshape(self.weight_shape)

    def _adapted_forward(self, x: Tensor) -> Tensor:
        y = self.apply_weight(x, self.weight)
        return y if self.up.shape[1] == 0 else y + self._update(self.dropout(x))

    def _update(self, x: Tensor) -> Tensor:
        """The update's output for x; the rank is not 0."""
        low = self._linear_or_conv(x, self.down.reshape(-1, *self.weight_shape[1:]))
        return self._pointwise(low, self.scaled_up())

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rank={self.up.shape[1]}"
