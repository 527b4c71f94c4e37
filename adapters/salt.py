"""SALT: scale and shift of the top singular values, a low-rank update of the rest."""

from typing import Literal

import torch
from torch import Tensor, nn

from adapters.base import Adaptable
from adapters.decomposition import Decomposer, decompose
from adapters.factorized import ProductNorm
from adapters.ranks import Ranks
from adapters.spectral import SpectralLayer

SaltInit = Literal["identity", "normal"]
Relu = Literal["core", "diagonal", "none"]


class SALTLayer(SpectralLayer):
    """W~ = U ReLU(blockdiag(diag(alpha * s_top + beta), diag(s_rest) + X Y)) V^T.

    alpha, beta (r,) are 1 and 0 at the start; X (r', d) and Y (d, r') with r' = r_max - r and d the LoRA rank;
    ReLU acts on every element of the core. Source: arXiv 2503.16055, eq. 2-5. Its regularizer (eq. 5) is
    ||alpha * s_top + beta - s_top||_F + ||X Y||_F.

    `relu` says where ReLU acts: "core", on every element as above; "diagonal", on the diagonal alone, so that X Y may
    take either sign off it; "none", nowhere. The layer starts alike in all three where X Y is 0.

    Two starts of X, Y are offered:
        identity: X Kaiming-uniform, Y zero. The layer equals the wrapped one. Every off-diagonal element of the core
            lies on ReLU's kink, where its gradient is 0: the first step moves Y through the diagonal alone, and the
            off-diagonal elements that this makes positive take part from the second step on.
        normal: X and Y both normal(0, `init_std`). Off-diagonal elements have gradients at once, but since ReLU
            drops the negative half of X Y, the layer does not start as the wrapped one.
    """

    method = "salt"

    def __init__(
        self,
        layer: Adaptable,
        rank: int,
        lora_rank: int,
        init: SaltInit = "identity",
        init_std: float = 0.01,
        generator: torch.Generator | None = None,
        decompose: Decomposer = decompose,
        relu: Relu = "core",
    ) -> None:
        super().__init__(layer, decompose)
        self.rank = rank
        self.relu = relu
        rest = self.full_rank - rank
        self.alpha = nn.Parameter(torch.ones_like(self.s[:rank]))
        self.beta = nn.Parameter(torch.zeros_like(self.s[:rank]))
        self.X = nn.Parameter(self.s.new_zeros(rest, lora_rank))
        self.Y = nn.Parameter(self.s.new_zeros(lora_rank, rest))
        with torch.no_grad():
            if init == "normal":
                self.X.normal_(0, init_std, generator=generator)
                self.Y.normal_(0, init_std, generator=generator)
            elif self.X.numel():
                nn.init.kaiming_uniform_(self.X, a=5**0.5, generator=generator)

    @classmethod
    def build(
        cls,
        layer: Adaptable,
        ranks: Ranks,
        init: SaltInit = "identity",
        init_std: float = 0.01,
        generator: torch.Generator | None = None,
        decompose: Decomposer = decompose,
        relu: Relu = "core",
    ) -> "SALTLayer":
        """The layer around `layer` with the top rank and LoRA rank of `ranks`."""
        return cls(layer, ranks.svd_rank, ranks.r_lora, init, init_std, generator, decompose, relu)

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        return {"alpha": self.alpha, "beta": self.beta, "X": self.X, "Y": self.Y}

    @property
    def top_values_count(self) -> int:
        return self.rank

    def top_values(self) -> Tensor:
        values = self.alpha * self.s[: self.rank] + self.beta
        return values if self.relu == "none" else torch.relu(values)

    def rest_block(self) -> Tensor | None:
        if self.rank == self.full_rank:
            return None
        block = torch.diag(self.s[self.rank :]) + self.X @ self.Y
        if self.relu == "diagonal":
            return torch.diagonal_scatter(block, torch.relu(block.diagonal()))
        return block if self.relu == "none" else torch.relu(block)

    def regularization(self) -> Tensor:
        shift = (self.alpha - 1) * self.s[: self.rank] + self.beta
        return torch.linalg.vector_norm(shift) + ProductNorm.apply(self.X, self.Y)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rank={self.rank}, lora_rank={self.X.shape[1]}, relu={self.relu}"
