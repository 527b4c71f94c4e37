"""rsLoRA: LoRA with a scale that keeps the update's size as the rank grows."""

from .low_rank import LowRankLayer

ALPHA = 16.0


class RsLoRALayer(LowRankLayer):
    """LoRA with the scale alpha / sqrt(d) in place of alpha / d.

    Without an alpha it is 16 (ours), which makes the scale 1 at rank 256. down starts Kaiming-uniform: the analysis
    asks for a spread that does not depend on the rank, unlike our LoRA's 1/d. up starts as zero, so that the layer
    equals the wrapped one. Limits as for LoRA.
    Source: Kalajdzievski 2023 (arXiv 2312.03732).
    """

    @staticmethod
    def _scale(rank: int, alpha: float | None) -> float:
        return (ALPHA if alpha is None else alpha) / rank**0.5
