"""PiSSA: LoRA that starts as the weight's largest singular directions, the others frozen."""

from typing import Self

import torch

from .base import Adaptable
from .decomposition import Decomposer, decompose
from .ranks import Ranks
from .split import SplitLayer


class PiSSALayer(SplitLayer):
    """W~ = R + scale * up down with R = W - U_d diag(s_d) V_d^T frozen, d the weight's d largest singular values.

    Trainable are up and down, at the start U_d sqrt(s_d / scale) and sqrt(s_d / scale) V_d^T, so that the layer equals
    the wrapped one. The scale is alpha / d, and 1 where no alpha is given. There is no dropout, which would drop inputs
    of the weight's own principal part.
    d is at most min(out, in). A convolution's kernel counts as a matrix (out, in * kh * kw), as for SALT; Hugging Face
    peft has Linear alone. Grouped convolutions are refused.
    Source: Meng et al., NeurIPS 2024 (arXiv 2404.02948).
    """

    def __init__(
        self, layer: Adaptable, rank: int, alpha: float | None = None, decompose: Decomposer = decompose
    ) -> None:
        super().__init__(layer, rank, 0.0, None, alpha)
        U, s, Vh = self._split_off(self._directions(rank), decompose)
        root = (s / self.scale).sqrt()
        with torch.no_grad():
            self.up.copy_(U * root)
            self.down.copy_(root[:, None] * Vh)

    @classmethod
    def build(  # type: ignore[override]  # a constructor, of a layer without dropout
        cls, layer: Adaptable, ranks: Ranks, lora_alpha: float | None = None, decompose: Decomposer = decompose
    ) -> Self:
        """The layer around `layer` with the LoRA rank of `ranks`."""
        return cls(layer, ranks.r_lora, lora_alpha, decompose)

    def _start(self, generator: torch.Generator | None) -> None:
        """Nothing: the start follows from the decomposition."""

    def _directions(self, rank: int) -> slice:
        return slice(0, rank)
