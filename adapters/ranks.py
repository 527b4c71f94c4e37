"""Which ranks a layer gets."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Ranks:
    """The ranks of one layer: `svd_rank` singular values scaled and shifted, low-rank updates of rank `r_lora`."""

    svd_rank: int
    r_lora: int


@dataclass(frozen=True)
class RankRule:
    """Ranks by kind of layer, and exceptions by name pattern (fnmatch, the last match wins, key by key)."""

    svd_rank_linear: int = 0
    svd_rank_conv2d: int = 0
    r_lora: int = 4
    pattern: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def of(self, name: str, is_conv: bool) -> Ranks:
        """The ranks of the layer called `name`."""
        chosen = {"svd_rank": self.svd_rank_conv2d if is_conv else self.svd_rank_linear, "r_lora": self.r_lora}
        for pattern, exception in self.pattern.items():
            if fnmatchcase(name, pattern):
                chosen.update(exception)
        return Ranks(**chosen)
