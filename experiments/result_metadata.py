"""What a results.json says of its model and its data, beside the scores."""

from pathlib import Path
from typing import Any

from adapters import METHODS, adapted_layers
from evaluation.results import SCHEMA_VERSION, Checkpoint
from networks.base import SegmentationModel
from networks.prompted import PromptedModel
from networks.strategies import parameter_counts
from utils.config import Config
from utils.config.adapters import FtConfig
from utils.config.options import BASELINE_ARCHS, EPOCH_CHOSEN_ON
from utils.files import sha256

# The keys of `ft` that set each rank; a method's results hold those of the ranks that it uses.
_RANK_KEYS = {
    "svd_rank": {"svd_rank_linear", "svd_rank_conv2d", "svd_ratio", "rank_pattern"},
    "r_lora": {"r_lora", "rank_pattern"},
}
# Those of each rule that chooses ranks.
_RULE_KEYS: dict[str, set[str]] = {
    "fixed": set(),
    "energy": {"rank_rule", "rank_energy"},
    "stable_rank": {"rank_rule"},
    "prune": {"rank_rule", "rank_budget"},
}


def result_metadata(config: Config, model: SegmentationModel, split: str, weights: Path | None) -> dict[str, Any]:
    """What is evaluated, and on what: the fields that every results.json begins with."""
    data, counts = config.require_data(), parameter_counts(model)
    return {
        "schema_version": SCHEMA_VERSION,
        "method": config.strategy,
        "arch": config.arch,
        "sam_type": config.baseline.size if config.arch in BASELINE_ARCHS else config.sam.sam_type,
        "profile": config.profile,
        "ranks": _ranks(config.ft),
        "layer_ranks": {name: layer.ranks for name, layer in adapted_layers(model)}
        if config.ft.rank_rule != "fixed"
        else {},
        "prompt": model.prompt,
        "text_encoder": config.prompts.text_encoder if model.prompt in ("text", "mixed") else None,
        "clicks": model.clicks if isinstance(model, PromptedModel) and model.prompt == "points" else None,
        "weights": "random" if config.pretrained_path is None else config.pretrained_path.name,
        "dataset": data.name,
        "split": split,
        "val_split": data.val,
        "epoch_chosen_on": EPOCH_CHOSEN_ON[data.val] if config.strategy != "none" else None,
        "fold": data.fold_num,
        "seed": config.seed,
        "checkpoint": Checkpoint(
            path=str(weights) if weights else None,
            sha256=sha256(weights) if weights else None,
            base_sha256=model.base_sha256 or None,
            clip_sha256=model.clip_sha256 or None,
        ),
        **{key: counts[key] for key in ("trainable", "total", "percent")},
    }


def _ranks(ft: FtConfig) -> dict[str, Any]:
    used = METHODS[ft.type].ranks if ft.type else ()
    keys = set().union(*(_RANK_KEYS[rank] for rank in used), _RULE_KEYS[ft.rank_rule])
    ranks = ft.model_dump(mode="json", include=keys, exclude_none=True)
    if ft.rank_rule in ("energy", "stable_rank"):  # instead of these three
        return {key: value for key, value in ranks.items() if not key.startswith("svd_")}
    if "svd_ratio" in ranks:  # replaces both
        del ranks["svd_rank_linear"], ranks["svd_rank_conv2d"]
    return ranks
