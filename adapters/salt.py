"""SALT: scale and shift of the top singular values, a low-rank update of the others."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from .base import Adaptable
from .decomposition import Decomposer, decompose
from .product import product_svd, shrink_product
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

    Where `variable`, the ranks are not those of a config: `cut` may lower them, and a saved state brings its own. The
    singular values that are scaled are then any of the r largest, `kept` (k,), and alpha and beta have k elements.
    """

    kept: Tensor | None

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
        variable: bool = False,
    ) -> None:
        super().__init__(layer, decompose)
        self.rank = rank
        self.relu = relu
        self.register_buffer("kept", torch.arange(rank) if variable else None, persistent=False)
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
        options = (salt_init, salt_init_std, generator, decompose, relu, ranks.variable)
        return cls(layer, ranks.svd_rank, ranks.r_lora, *options)

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        return {"alpha": self.alpha, "beta": self.beta, "X": self.X, "Y": self.Y}

    def adapter_buffers(self) -> dict[str, Tensor]:
        return super().adapter_buffers() | ({} if self.kept is None else {"kept": self.kept})

    def base_tensors(self) -> dict[str, Tensor]:
        return {key: tensor for key, tensor in super().base_tensors().items() if key != "kept"}

    @property
    def ranks(self) -> dict[str, int]:
        return {"svd_rank": self.alpha.numel(), "r_lora": self.X.shape[1]}

    @property
    def top_values_count(self) -> int:
        return self.rank

    def top_values(self) -> Tensor:
        values = self.alpha * self._scaled() + self.beta
        if self.kept is not None:
            values = self.s[: self.rank].index_copy(0, self.kept, values)
        return values if self.relu == "none" else torch.relu(values)

    def _scaled(self) -> Tensor:
        """The singular values that are scaled and shifted, as they were (k,)."""
        return self.s[: self.rank] if self.kept is None else self.s[self.kept]

    def rest_block(self) -> Tensor | None:
        if self.rank == self.full_rank:
            return None
        block = torch.diag(self.s[self.rank :]) + self.X @ self.Y
        if self.relu == "diagonal":
            return torch.diagonal_scatter(block, torch.relu(block.diagonal()))
        return block if self.relu == "none" else torch.relu(block)

    def regularization(self) -> Tensor:
        return torch.linalg.vector_norm(self.changes()) + torch.linalg.matrix_norm(self.X @ self.Y)

    def changes(self) -> Tensor:
        """By how much each scaled singular value has changed, before ReLU (k,)."""
        return (self.alpha - 1) * self._scaled() + self.beta

    @torch.no_grad()
    def proximal_step(self, step: float) -> None:
        """Lowers the changes and the singular values of X Y, to 0 at the least, in place; `step` is above 0.

        A change is lowered by step * (1 + s), what a step of that size in alpha and beta adds to it; alpha - 1 and beta
        get one factor, so that a change at 0 means alpha 1 and beta 0. X Y: see `shrink_product`.
        """
        factor = (1 - step * (1 + self._scaled()) / self.changes().abs()).clamp(min=0)
        self.alpha.sub_(1).mul_(factor).add_(1)
        self.beta.mul_(factor)
        shrink_product(self.X, self.Y, step)

    def energies(self) -> Tensor:
        """The squared changes, then the squared singular values of X Y (k + d,), float64 on the CPU."""
        update = product_svd(self.X.double(), self.Y.double())
        values = self.X.new_zeros(self.X.shape[1], dtype=torch.float64)
        values[: update.rank] = update.values[: update.rank]
        return torch.cat([self.changes().double(), values]).detach().square().cpu()

    @torch.no_grad()
    def core(self) -> Tensor:
        """The core C (r_max, r_max) in float64; its norms are those of the adapted weight."""
        blocks = [self.top_values().diag(), self.rest_block()]
        return torch.block_diag(*(block for block in blocks if block is not None)).double()

    @torch.no_grad()
    def cut(self, values: Tensor, r_lora: int) -> float:
        """Keeps of the scaled values those where `values` (k,) is True, and the `r_lora` largest terms of X Y.

        The others become as the wrapped layer has them. X and Y become the factors L sqrt(S) and sqrt(S) R^T of the SVD
        of X Y. Returns by how much the adapted weight has changed in the Frobenius norm: at most the norm of all that
        was dropped, since ReLU brings two numbers no farther apart, and just that where it changes neither (Eckart and
        Young, Psychometrika 1936).

        Raises: RuntimeError for a layer whose ranks are fixed.
        """
        if self.kept is None:
            raise RuntimeError("the ranks of this layer are fixed")
        before, values = self.core(), values.to(self.kept.device)
        update = product_svd(self.X.double(), self.Y.double())
        root = update.values[:r_lora].sqrt()
        new = {
            "alpha": self.alpha[values],
            "beta": self.beta[values],
            "X": update.L[:, :r_lora] * root,
            "Y": root[:, None] * update.R[:, :r_lora].mT,
        }
        self.kept = self.kept[values]
        self._replace_parameters(new)
        return float(torch.linalg.matrix_norm(self.core() - before))

    def check_buffers(self, saved: Mapping[str, Tensor]) -> str | None:
        if self.kept is not None and not self._can_take(saved):
            return "the ranks in the state contradict each other"
        return super().check_buffers(saved)

    def _can_take(self, saved: Mapping[str, Tensor]) -> bool:
        kept, X = saved["kept"], saved["X"]
        if kept.is_floating_point() or kept.ndim != 1 or X.ndim != 2:
            return False
        (rest, r_lora), k, rank = X.shape, len(kept), self.full_rank - len(X)
        shapes = {"alpha": (k,), "beta": (k,), "Y": (r_lora, rest)}
        inside = rank >= 0 and all(0 <= index < rank for index in kept.tolist())
        return inside and all(saved[key].shape == shape for key, shape in shapes.items())

    def take_ranks(self, saved: Mapping[str, Tensor]) -> None:
        if self.kept is not None:
            self.rank, self.kept = self.full_rank - len(saved["X"]), saved["kept"].to(self.kept.device)
            self._replace_parameters({key: saved[key] for key in self.adapter_parameters()})

    def _replace_parameters(self, new: Mapping[str, Tensor]) -> None:
        """Puts new parameters in the place of those that have another shape."""
        for key, old in self.adapter_parameters().items():
            if new[key].shape != old.shape:
                setattr(
                    self,
                    key,
                    nn.Parameter(new[key].to(old).clone(memory_format=torch.contiguous_format), old.requires_grad),
                )
            else:
                old.data.copy_(new[key])
        self._cached_weight = None

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rank={self.rank}, lora_rank={self.X.shape[1]}, relu={self.relu}"
