"""The ranks of a layer, and the rule that chooses them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

AboveRank = Literal["error", "clamp", "allow"]


@dataclass(frozen=True)
class Ranks:
    """The ranks of one layer: `svd_rank` singular values are scaled and shifted, `r_lora` is the update's rank."""

    svd_rank: int
    r_lora: int


@dataclass(frozen=True)
class RankRule:
    """Ranks by kind of layer, with exceptions by name pattern (fnmatch, the last match wins, key by key).

    `svd_ratio`, if given, replaces both svd ranks: a layer gets max(1, int(svd_ratio * min(out, in))).
    `above_rank` says how an `r_lora` above a layer's min(out, in) is handled: "error" refuses it, "clamp" lowers it to
    that bound, "allow" keeps it (more columns than the update's rank can use, as published for SAM2's narrow layers).
    """

    svd_rank_linear: int = 0
    svd_rank_conv2d: int = 0
    r_lora: int = 4
    pattern: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    svd_ratio: float | None = None
    above_rank: AboveRank = "error"

    def of(self, name: str, is_conv: bool, full_rank: int) -> Ranks:
        """The ranks of the layer called `name`, whose min(out, in) is `full_rank`."""
        svd_rank = self.svd_rank_conv2d if is_conv else self.svd_rank_linear
        if self.svd_ratio is not None:
            svd_rank = max(1, int(self.svd_ratio * full_rank))
        chosen = {"svd_rank": svd_rank, "r_lora": self.r_lora}
        for pattern, exception in self.pattern.items():
            if fnmatchcase(name, pattern):
                chosen.update(exception)
        if self.above_rank == "clamp":
            chosen["r_lora"] = min(chosen["r_lora"], full_rank)
        return Ranks(**chosen)
