"""KaSA: knowledge-aware singular-value adaptation, an update with singular values of its own."""

from typing import Self

import torch
from torch import Tensor, nn

from .base import Adaptable, AdapterError
from .decomposition import Decomposer, decompose
from .ranks import Ranks
from .split import SplitLayer

SHARE_OF_VALUES = 0.1  # beta / gamma of Hugging Face peft's defaults, 1e-4 and 1e-3


class KaSALayer(SplitLayer):
    """W~ = R + scale * up diag(sigma) down, the frozen R being W without its d smallest singular directions.

    Trainable are up (out, d), sigma (d,) and down (d, in): at the start zero, standard normal and Kaiming-uniform. The
    layer then equals one with the weight R, not the wrapped one: the paper takes the last directions for noise.
    The scale is alpha / d, and 1 where no alpha is given.
    The regularizer is beta / gamma * ||sigma||^2 + ||up^T up - I||_F + ||down down^T - I||_F (eq. 9-11), with
    beta / gamma = 0.1. The paper's gamma is then the weight of the regularization in the loss.
    d is below min(out, in). A convolution's kernel counts as a matrix (out, in * kh * kw), as for SALT; Hugging Face
    peft has Linear alone. Grouped convolutions are refused.
    Source: Wang et al., ICLR 2025 (arXiv 2412.06071).
    """

    def __init__(
        self,
        layer: Adaptable,
        rank: int,
        dropout: float = 0.1,
        generator: torch.Generator | None = None,
        alpha: float | None = None,
        decompose: Decomposer = decompose,
    ) -> None:
        super().__init__(layer, rank, dropout, generator, alpha)
        if rank >= self.full_rank:
            raise AdapterError(f"r_lora {rank} must be below {self.full_rank}, the layer's min(out, in)")
        self._split_off(slice(self.full_rank - rank, self.full_rank), decompose)
        self.sigma = nn.Parameter(self.weight.new_empty(rank).normal_(generator=generator))

    @classmethod
    def build(
        cls,
        layer: Adaptable,
        ranks: Ranks,
        lora_dropout: float = 0.1,
        generator: torch.Generator | None = None,
        lora_alpha: float | None = None,
        decompose: Decomposer = decompose,
    ) -> Self:
        """The layer around `layer` with the LoRA rank of `ranks`."""
        return cls(layer, ranks.r_lora, lora_dropout, generator, lora_alpha, decompose)

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        return {**super().adapter_parameters(), "sigma": self.sigma}

    def scaled_up(self) -> Tensor:
        return self.scale * (self.up * self.sigma)

    def regularization(self) -> Tensor:
        one = torch.eye(len(self.sigma), dtype=self.sigma.dtype, device=self.sigma.device)
        norms = (torch.linalg.matrix_norm(gram - one) for gram in (self.up.mT @ self.up, self.down @ self.down.mT))
        return SHARE_OF_VALUES * self.sigma.square().sum() + sum(norms)
