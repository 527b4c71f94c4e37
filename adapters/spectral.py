"""A layer whose weight is held as its singular value decomposition, W = U diag(s) Vh: the base of SALT and S-SAM."""

from collections.abc import Mapping

import torch
from torch import Tensor

from .base import Adaptable, AdaptedLayer
from .decomposition import Decomposer, decompose, fingerprint, same_basis


class SpectralLayer(AdaptedLayer):
    """The adapted weight is U C Vh: a subclass defines the core C (r, r), which takes the place of diag(s).

    C = blockdiag(diag(`top_values()`), `rest_block()`) with k top values and a dense block (r - k, r - k), which is
    None where k = r. U (out, r), s (r,) and Vh (r, in) are frozen and replace the weight. They are not saved with the
    adapter, since the base weights determine them.
    """

    U: Tensor
    s: Tensor
    Vh: Tensor

    def __init__(self, layer: Adaptable, decompose: Decomposer = decompose) -> None:
        super().__init__(layer)
        weight = layer.weight.detach().reshape(self.out_features, self.in_features)
        rank = self.full_rank
        if weight.is_meta:
            U, s, Vh = (
                weight.new_empty(self.out_features, rank),
                weight.new_empty(rank),
                weight.new_empty(rank, self.in_features),
            )
        else:
            factors = decompose(weight)
            U, s, Vh = factors.U, factors.s, factors.Vh
        self.register_buffer("U", U, persistent=False)
        self.register_buffer("s", s, persistent=False)
        self.register_buffer("Vh", Vh, persistent=False)
        self._fingerprint: tuple[int, Tensor] | None = None

    def top_values(self) -> Tensor:
        """The adapted largest singular values (k,)."""
        raise NotImplementedError

    def rest_block(self) -> Tensor | None:
        """The adapted block of the other singular values (r - k, r - k), or None where k = r."""
        raise NotImplementedError

    def adapter_buffers(self) -> dict[str, Tensor]:
        if self.U.is_meta:
            return {}
        return {"fingerprint": self._own_fingerprint()}

    def check_buffers(self, saved: Mapping[str, Tensor]) -> str | None:
        if not same_basis(saved["fingerprint"], self._own_fingerprint()):
            return (
                "its singular vectors differ from those the state was trained in "
                "(another base checkpoint, or another decomposition of it)"
            )
        return None

    def _own_fingerprint(self) -> Tensor:
        # The basis is frozen, but loading a model without base file overwrites it.
        if self._fingerprint is None or self._fingerprint[0] != self.U._version:
            self._fingerprint = (self.U._version, fingerprint(self.U, self.Vh))
        return self._fingerprint[1]

    def merged_weight(self) -> Tensor:
        top, block = self.top_values(), self.rest_block()
        k = top.shape[0]
        core_Vh = top[:, None] * self.Vh[:k]
        if block is not None:
            core_Vh = torch.cat([core_Vh, block @ self.Vh[k:]])
        return (self.U @ core_Vh).reshape(self.weight_shape)

    def _adapted_forward(self, x: Tensor) -> Tensor:
        if self._positions(x) and self._factors_are_cheaper(self._positions(x)):
            return self.factorized_forward(x)
        return self.apply_weight(x, self.full_precision_weight())

    def factorized_forward(self, x: Tensor) -> Tensor:
        """U (C (Vh x)), without forming the weight. Not for grouped convolutions."""
        with torch.autocast(self._device_type, enabled=False):  # the core keeps full precision under autocast
            top, block = self.top_values(), self.rest_block()
        channels = -3 if self.is_conv else -1
        z = self._linear_or_conv(x, self.Vh.reshape(-1, *self.weight_shape[1:]))
        z_top, z_rest = z.split([self.top_values_count, self.full_rank - self.top_values_count], dim=channels)
        z = z_top * (top[:, None, None] if self.is_conv else top).to(z.dtype)
        if block is not None:
            z = torch.cat([z, self._pointwise(z_rest, block)], dim=channels)
        return self._pointwise(z, self.U, self.bias)

    def _positions(self, x: Tensor) -> int:
        """Number of positions that the weight is applied at (for a strided convolution, an upper bound)."""
        if self.is_conv:
            return 0 if self._conv_options["groups"] > 1 else x.numel() // x.shape[-3]
        return x.numel() // self.in_features

    def _factors_are_cheaper(self, positions: int) -> bool:
        """Compares the multiplications of a training step (forward and backward) in both orders of computing.

        U (C (Vh x)): Vh and U each in the forward pass and for the gradient of their input, the block also for its own
        gradient. (U C Vh) x: forward pass, gradient of x and gradient of the weight at every position; and the weight
        is formed once, and its gradient propagated to the block.
        """
        out, inside, rank = self.out_features, self.in_features, self.full_rank
        rest = rank - self.top_values_count
        factors = positions * (2 * rank * (inside + out) + 3 * rest * rest)
        product = 3 * positions * out * inside + 2 * (rest * rest + out * rank) * inside
        return factors < product

    @property
    def top_values_count(self) -> int:
        """k, the number of top values."""
        raise NotImplementedError
