"""A low-rank layer whose frozen weight lacks some of its singular directions: the base of PiSSA, MiLoRA and KaSA."""

from collections.abc import Mapping

import torch
from torch import Tensor

from .base import AdapterError
from .decomposition import Decomposer, same_basis, weight_fingerprint
from .low_rank import LowRankLayer


class SplitLayer(LowRankLayer):
    """W = R + U_k diag(s_k) V_k^T for some singular directions k of W; R takes W's place as the frozen weight.

    R is not saved with the adapter, since W determines it. A fingerprint of R tells a state that was trained beside
    another one.
    """

    _fingerprint: tuple[int, Tensor] | None = None

    def _split_off(self, directions: slice, decompose: Decomposer) -> tuple[Tensor, Tensor, Tensor]:
        """Takes singular directions, a slice of their descending order, out of the weight: U (out, k), s, Vh (k, in).

        Raises: AdapterError for more directions than the weight has.
        """
        weight, rank = self.weight.reshape(self.out_features, self.in_features), self.up.shape[1]
        if rank > self.full_rank:
            raise AdapterError(f"r_lora {rank} is outside 0..{self.full_rank}, the layer's min(out, in)")
        if weight.is_meta:
            return torch.empty_like(self.up), weight.new_empty(rank), torch.empty_like(self.down)
        factors = decompose(weight)
        U, s, Vh = factors.U[:, directions], factors.s[directions], factors.Vh[directions]
        self.weight = (weight - (U * s) @ Vh).reshape(self.weight_shape)
        return U, s, Vh

    def adapter_buffers(self) -> dict[str, Tensor]:
        return {} if self.weight.is_meta else {"fingerprint": self._own_fingerprint()}

    def check_buffers(self, saved: Mapping[str, Tensor]) -> str | None:
        if not same_basis(saved["fingerprint"], self._own_fingerprint()):
            return "its frozen part differs from the one that the state was trained beside (another base checkpoint)"
        return None

    def _own_fingerprint(self) -> Tensor:
        # Loading a model without base file overwrites the weight.
        if self._fingerprint is None or self._fingerprint[0] != self.weight._version:
            self._fingerprint = (self.weight._version, weight_fingerprint(self.weight.flatten(1)))
        return self._fingerprint[1]
