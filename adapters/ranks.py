"""The ranks of a layer, and the rule that chooses them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

import torch
from torch import Tensor

AboveRank = Literal["error", "clamp", "allow"]
RankChoice = Literal["fixed", "energy", "stable_rank", "prune"]


@dataclass(frozen=True)
class Ranks:
    """The ranks of one layer: `svd_rank` singular values are scaled and shifted, `r_lora` is the update's rank.

    `variable` ranks are not known from a config: they are saved with a layer's state, and may be cut.
    """

    svd_rank: int
    r_lora: int
    variable: bool = False


@dataclass(frozen=True)
class RankRule:
    """Ranks by kind of layer, with exceptions by name pattern (fnmatch, the last match wins, key by key).

    `svd_ratio`, if given, replaces both svd ranks: a layer gets max(1, int(svd_ratio * min(out, in))).
    `above_rank` says how an `r_lora` above a layer's min(out, in) is handled: "error" refuses it, "clamp" lowers it to
    that bound, "allow" keeps it (more columns than the update's rank can use, as published for SAM2's narrow layers).
    `choice` says where the svd ranks come from: "fixed", as above; "energy" and "stable_rank", from each layer's
    singular values (`energy_rank` with the share `energy`, `stable_rank`); "prune", as above, to be cut in training.
    """

    svd_rank_linear: int = 0
    svd_rank_conv2d: int = 0
    r_lora: int = 4
    pattern: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    svd_ratio: float | None = None
    above_rank: AboveRank = "error"
    choice: RankChoice = "fixed"
    energy: float = 0.9

    @property
    def needs_values(self) -> bool:
        """Whether the ranks depend on the layers' singular values."""
        return self.choice in ("energy", "stable_rank")

    def of(self, name: str, is_conv: bool, full_rank: int, values: Tensor | None = None) -> Ranks:
        """The ranks of the layer called `name`, whose min(out, in) is `full_rank`.

        `values` are its singular values, descending, for a rule that `needs_values`.
        """
        svd_rank = self.svd_rank_conv2d if is_conv else self.svd_rank_linear
        if self.svd_ratio is not None:
            svd_rank = max(1, int(self.svd_ratio * full_rank))
        if self.needs_values and values is not None:
            svd_rank = energy_rank(values, self.energy) if self.choice == "energy" else stable_rank(values)
        chosen = {"svd_rank": svd_rank, "r_lora": self.r_lora}
        for pattern, exception in self.pattern.items():
            if fnmatchcase(name, pattern):
                chosen.update(exception)
        if self.above_rank == "clamp":
            chosen["r_lora"] = min(chosen["r_lora"], full_rank)
        return Ranks(**chosen, variable=self.choice != "fixed")


def energy_rank(values: Tensor, share: float) -> int:
    """The smallest k whose k largest singular values hold `share` of ||W||_F^2: sum_(i<=k) s_i^2 >= share sum_i s_i^2.

    Args:
        values: (r,), descending. All 0: the rank is 0.
        share: above 0, to 1.
    """
    energy = values.detach().double().square().cumsum(0)
    if not energy.numel() or energy[-1] == 0:
        return 0
    return int(torch.searchsorted(energy, share * energy[-1])) + 1


def stable_rank(values: Tensor) -> int:
    """The stable rank ||W||_F^2 / ||W||_2^2, rounded up; `values` as in `energy_rank`.

    A whole number that rounding has raised a little, by less than 1e-6 of itself, is not rounded up.
    Source: Rudelson and Vershynin, J. ACM 2007.
    """
    squares = values.detach().double().square()
    if not squares.numel() or squares[0] == 0:
        return 0
    return math.ceil(float(squares.sum() / squares[0]) * (1 - 1e-6))
