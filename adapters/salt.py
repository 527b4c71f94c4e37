"""SALT: scale and shift of the top singular values, a low-rank update of the others."""

from typing import Literal

import torch
from torch import Tensor, nn

from .base import Adaptable
from .decomposition import Decomposer, decompose
from .ranks import Ranks
from .spectral import SpectralLayer

SaltInit = Literal["identity", "normal"]
Relu = Literal["core", "diagonal", "none"]


class SALTLayer(SpectralLayer):
    """SALT's equation: W~ = U ReLU(blockdiag(diag(alpha * s_top + beta), diag(s_rest) + X Y)) V^T.

    W = U diag(s) V^T is the frozen weight, s_top its r largest singular values and s_rest the other r' = r_max - r.
    Trainable are alpha, beta (r,), 1 and 0 at the start, and X (r', d), Y (d, r') with the LoRA rank d. ReLU acts on
    every element of the core. The regularizer (eq. 5) is ||alpha * s_top + beta - s_top||_F + ||X Y||_F.
    Source: arXiv 2503.16055, eq. 2-5.

    `relu` selects where ReLU acts: "core", on every element as above; "diagonal", on the diagonal alone, so that the
    elements of X Y off the diagonal may have either sign; "none", nowhere. Where X Y is 0, all three are equal.

    `init` selects the start of X and Y:
        "identity": X Kaiming-uniform, Y zero. The layer equals the wrapped one. With `relu="core"`, every off-diagonal
            element of the core is then 0, where ReLU's gradient is 0: the first step changes Y through the diagonal
            alone, and the off-diagonal elements that become positive receive gradients from the second step on.
        "normal": X and Y normal(0, `init_std`). Off-diagonal elements receive gradients at once. But since ReLU drops
            the negative half of X Y, the layer does not equal the wrapped one.
    """

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
        salt_init: SaltInit = "identity",
        salt_init_std: float = 0.01,
        generator: torch.Generator | None = None,
        decompose: Decomposer = decompose,
        relu: Relu = "core",
    ) -> "SALTLayer":
        """The layer around `layer` with the top rank and LoRA rank of `ranks`."""
        return cls(layer, ranks.svd_rank, ranks.r_lora, salt_init, salt_init_std, generator, decompose, relu)

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
        return torch.linalg.vector_norm(shift) + torch.linalg.matrix_norm(self.X @ self.Y)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rank={self.rank}, lora_rank={self.X.shape[1]}, relu={self.relu}"
