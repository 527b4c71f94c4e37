"""MiLoRA: LoRA that starts as the weight's smallest singular directions, the others frozen."""

from .pissa import PiSSALayer


class MiLoRALayer(PiSSALayer):
    """PiSSA with the d smallest singular values in place of the largest: W's principal part is frozen.

    W~ = W_p + scale * up down, W_p = W - U_d diag(s_d) V_d^T, up = U_d sqrt(s_d / scale) and down = sqrt(s_d / scale)
    V_d^T at the start, for the d last singular values. Limits and the missing dropout as for PiSSA.
    Source: Wang et al., NAACL 2025 (arXiv 2406.09044).
    """

    def _directions(self, rank: int) -> slice:
        return slice(self.full_rank - rank, self.full_rank)
