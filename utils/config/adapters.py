"""The section `ft` of a config."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from utils.config.options import (
    AdapterType,
    CountOrZero,
    Name,
    NotNegative,
    Positive,
    RankChoice,
    Relu,
    RLoraAboveRank,
    SaltInit,
    Share,
)
from utils.config.schema import Section


class RankPattern(Section):
    """Ranks of the layers whose name matches a pattern; a rank that is not set is that of the section `ft`."""

    svd_rank: CountOrZero | None = None
    r_lora: CountOrZero | None = None

    @model_validator(mode="after")
    def _sets_a_rank(self) -> Self:
        if self.svd_rank is None and self.r_lora is None:
            raise ValueError("must set svd_rank, r_lora or both")
        return self


class FtConfig(Section):
    """The adapters: type, ranks, targets and initialization. Ranks above a layer's own are refused at injection.

    `svd_ratio` replaces both svd ranks where it is set: that share of each layer's min(out, in). `relu` says where SALT
    applies ReLU (`adapters.salt`). `svd_cache` keeps the decompositions of a base file's weights on disk. `rank_rule`
    chooses svd ranks from each layer's singular values (`adapters.ranks`), or cuts all ranks in training
    (`adapters.pruning`).
    """

    type: AdapterType | None = None
    svd_rank_linear: CountOrZero = 500
    svd_rank_conv2d: CountOrZero = 250
    svd_ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    r_lora: CountOrZero = 4
    r_lora_above_rank: RLoraAboveRank = "error"
    rank_pattern: dict[str, RankPattern] = Field(default={})
    rank_rule: RankChoice = "fixed"
    rank_energy: Annotated[float, Field(gt=0, le=1)] = 0.9
    rank_penalty: NotNegative = 1.0
    rank_cut_at: Annotated[float, Field(gt=0, le=1)] = 0.5
    rank_budget: Annotated[float, Field(gt=0, lt=1)] | None = None
    targets: Annotated[list[Name], Field(min_length=1)] | None = None
    salt_init: SaltInit = "identity"
    salt_init_std: NotNegative = 0.01
    relu: Relu = "core"
    lora_dropout: Share = 0.1
    lora_alpha: Positive | None = None
    svd_cache: bool = True

    @model_validator(mode="after")
    def _budget_serves_pruning(self) -> Self:
        if self.rank_budget is not None and self.rank_rule != "prune":
            raise ValueError(
                f"has rank_budget, but rank_rule is {self.rank_rule}; only rank_rule: prune cuts to a budget"
            )
        return self
