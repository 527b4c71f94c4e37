"""S-SAM's SVD fine-tuning: scale and shift of every singular value."""

import torch
from torch import Tensor, nn

from .base import Adaptable
from .decomposition import Decomposer, decompose
from .ranks import Ranks
from .spectral import SpectralLayer


class SVDLayer(SpectralLayer):
    """W~ = U diag(ReLU(alpha * s + beta)) V^T with alpha, beta (r_max,) trainable, 1 and 0 at the start.

    Source: Paranjape et al., "S-SAM: SVD-based fine-tuning of SAM", MICCAI 2024. Its regularizer is
    ||1 - alpha|| + ||beta||. At the start the layer equals the wrapped one.
    """

    def __init__(self, layer: Adaptable, decompose: Decomposer = decompose) -> None:
        super().__init__(layer, decompose)
        self.alpha = nn.Parameter(torch.ones_like(self.s))
        self.beta = nn.Parameter(torch.zeros_like(self.s))

    @classmethod
    def build(cls, layer: Adaptable, ranks: Ranks, decompose: Decomposer = decompose) -> "SVDLayer":
        """The layer around `layer`; all singular values are adapted, whatever the ranks say."""
        return cls(layer, decompose)

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        return {"alpha": self.alpha, "beta": self.beta}

    @property
    def top_values_count(self) -> int:
        return self.full_rank

    def top_values(self) -> Tensor:
        return torch.relu(self.alpha * self.s + self.beta)

    def rest_block(self) -> None:
        return None

    def regularization(self) -> Tensor:
        return torch.linalg.vector_norm(1 - self.alpha) + torch.linalg.vector_norm(self.beta)
