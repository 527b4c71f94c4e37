"""Weights held as their singular factors, W = U diag(s) Vh: what S-SAM and SALT share."""

import torch
from torch import Tensor, nn

from adapters.base import Adaptable, AdaptedLayer
from adapters.decomposition import Decomposer, decompose, fingerprint, same_basis
from adapters.factorized import SpectralLinear


class SpectralLayer(AdaptedLayer):
    """Holds U (out, r), s (r,), Vh (r, in) in place of the weight (they are not saved: the base weights give them).

    A subclass says what becomes of the singular values: the core C (r, r) is the diagonal `top_values()` (k,), followed
    by the dense block `rest_block()` (r - k, r - k), or None where all values are on the diagonal.
    The adapted weight is U C Vh.
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
        """The adapted leading singular values (k,)."""
        raise NotImplementedError

    def rest_block(self) -> Tensor | None:
        """The adapted block of the remaining singular values (r - k, r - k), or None where k = r."""
        raise NotImplementedError

    def adapter_buffers(self) -> dict[str, Tensor]:
        if self.U.is_meta:
            return {}
        return {"fingerprint": self._own_fingerprint()}

    def check_buffers(self, saved: dict[str, Tensor]) -> str | None:
        if not same_basis(saved["fingerprint"], self._own_fingerprint()):
            return (
                "its singular vectors differ from those the state was trained in "
                "(another base checkpoint, or another decomposition of it)"
            )
        return None

    def _own_fingerprint(self) -> Tensor:
        # The basis is frozen; only loading a whole random model writes it anew.
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
        with torch.autocast(self._device_type, enabled=False):  # the core stays exact, also in mixed precision
            top, block = self.top_values(), self.rest_block()
        if not self.is_conv:
            return SpectralLinear.apply(x, self.U, self.Vh, top, block, self.bias)
        k = top.shape[0]
        z = self._convolve(x, self.Vh.reshape(-1, *self.weight_shape[1:]), None)  # (B, r, H, W)
        z_top = z[:, :k] * top[:, None, None]
        if block is not None:
            z_top = torch.cat([z_top, nn.functional.conv2d(z[:, k:], block[:, :, None, None])], dim=1)
        return nn.functional.conv2d(z_top, self.U[:, :, None, None], self.bias)

    def _positions(self, x: Tensor) -> int:
        """Number of positions that the weight is applied at (for a strided convolution, an upper bound)."""
        if self.is_conv:
            return 0 if self._conv_options["groups"] > 1 else x.numel() // x.shape[1]
        return x.numel() // self.in_features

    def _factors_are_cheaper(self, positions: int) -> bool:
        """Compares multiplications of a training step (forward and backward) of the two ways.

        Factors: forward and the gradient of x pass Vh, U and the block, which a linear layer may multiply by a factor
        instead (see `SpectralLinear`); the block also needs its own gradient. Product: forward, gradient of x and
        gradient of W at every position, and the weight formed once and differentiated back.
        """
        out, inside, rank = self.out_features, self.in_features, self.full_rank
        rest = rank - self.top_values_count
        passes = 2 * positions if self.is_conv else min(positions, out) + min(positions, inside)
        factors = positions * 2 * rank * (inside + out) + (positions + passes) * rest * rest
        product = 3 * positions * out * inside + 2 * (rest * rest + out * rank) * inside
        return factors < product

    @property
    def top_values_count(self) -> int:
        """k, how many singular values lie on the diagonal."""
        raise NotImplementedError
