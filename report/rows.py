"""The rows of the table: which runs belong to one row, its label, and its place."""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import adapters
from evaluation.results import RunResults
from networks import baselines
from report.paper import IMG_SIZE, PAPER_ROWS, PaperRow
from report.settings import Settings, differences
from utils.config.options import SAM2_ARCH, SAM_ARCH

METHODS = {
    "none": "no training",
    "full": "full fine-tuning",
    "decoder": "mask decoder",
    "biastuning": "biases",
    "svdbiastuning": "SVD and biases",
    **{name: method.title for name, method in adapters.METHODS.items() if name != "salt"},
    "salt": "SALT",  # the last one, since the others are compared with it
}
SAM_NAMES = {"nano": "nano SAM", "base": "SAM ViT-B", "large": "SAM ViT-L", "huge": "SAM ViT-H"}
SAM2_NAMES = {"base_plus": "SAM2 B+", "tiny": "SAM2 T", "small": "SAM2 S", "large": "SAM2 L", "nano": "nano SAM2"}
PROMPTS = {
    "box_full": "box around the whole image",
    "box_oracle": "box from the truth",
    "box": "trained with boxes, box from the truth",
    "points": "clicks from the truth",
    "mixed": "trained with text, boxes and clicks",
}
BASELINES = {name: baseline.title for name, baseline in baselines.BASELINES.items()}
RANK_WORDS = {"svd_rank_linear": "top", "svd_rank_conv2d": "neck", "svd_ratio": "top", "r_lora": "LoRA"}
# Of rules that choose ranks; each takes its keys out of the values.
RULE_WORDS: dict[Any, Callable[[dict[str, Any]], str]] = {
    "energy": lambda values: f"top {values.pop('rank_energy', 0):.0%} of the energy",
    "stable_rank": lambda values: "top stable rank",
    "prune": lambda values: "pruned" + (f" to {share:.1%}" if (share := values.pop("rank_budget", None)) else ""),
}
_OFFICIAL_SAM = re.compile(r"(?<!med)sam_vit_[bhl]", re.IGNORECASE)


@dataclass(frozen=True)
class RowKey:
    """What the runs of one row share; they differ only in dataset, seed and fold.

    Attributes:
        ranks: the method's ranks as JSON with sorted keys.
        prompt, text_encoder: "" for networks without a prompt; text_encoder is also "" where the prompt is not a text.
        base: "random", or "" for pretrained weights; always "" for the traditional networks.
        paper: the name of the paper's row that these runs repeat, or "".
        mask_head: `sam.mask_head`; the paper's rows have SAM's own, "official".
        scale: `data_transforms.scale`; the paper's rows have "fit".
        name: the row's name in the plan of a sweep, or "".
        settings: the keys of the config that tell its runs from others of the same method, and their values, as JSON;
            "" where nothing does, "null" where they are unknown.
        copy: numbers runs that are the same in all of that, on the same dataset with the same seed.
    """

    arch: str
    sam_type: str
    method: str
    ranks: str
    prompt: str
    text_encoder: str
    profile: str
    img_size: int
    base: str
    paper: str
    mask_head: str = "official"
    scale: str = "fit"
    name: str = ""
    settings: str = ""
    copy: int = 0

    @property
    def rank_values(self) -> dict[str, Any]:
        """The ranks as in results.json."""
        return json.loads(self.ranks)

    @property
    def r_lora(self) -> int:
        """The LoRA rank; 0 for methods without one."""
        return int(self.rank_values.get("r_lora") or 0)

    @property
    def section(self) -> str:
        """The section of the row, within which rows are compared: "512", "sam2" (at 512), or another image size."""
        return "sam2" if self.arch == SAM2_ARCH and self.img_size == IMG_SIZE else str(self.img_size)


def row_key(results: RunResults, settings: Settings | None) -> RowKey:
    """The row that a run with these settings belongs to; unknown ones count as the paper's."""
    mask_head = (settings or {}).get("sam.mask_head", "official")
    scale = (settings or {}).get("data_transforms.scale", "fit")
    prompted = results.arch not in BASELINES
    ranks = {key: value for key, value in results.ranks.items() if value not in ({}, None)}
    paper = paper_row(results) if (mask_head, scale) == ("official", "fit") else None
    return RowKey(
        results.arch,
        results.sam_type or "",
        results.method,
        json.dumps(ranks, sort_keys=True),
        results.prompt if prompted else "",
        (results.text_encoder or "") if prompted and results.prompt in ("text", "mixed") else "",
        results.profile,
        results.img_size,
        "random" if prompted and results.weights == "random" else "",
        paper.name if paper else "",
        mask_head,
        scale,
    )


def paper_row(results: RunResults) -> PaperRow | None:
    """The paper's row that a run repeats: the same network, method, LoRA rank and prompt, at 512 pixels."""
    if results.img_size != IMG_SIZE or "rank_rule" in results.ranks:
        return None
    return next((row for row in PAPER_ROWS if _matches(row, results)), None)


def _matches(row: PaperRow, results: RunResults) -> bool:
    if (row.arch, row.method) != (results.arch, results.method):
        return False
    if row.sam_type is None:
        return results.sam_type in (None, "paper")
    if row.sam_type != results.sam_type or results.weights == "random":
        return False
    if row.r_lora is not None and row.r_lora != results.ranks.get("r_lora"):
        return False
    if row.prompt == "box":
        # The official SAM with a box prompt is no row of the paper.
        return results.prompt in ("box_full", "box_oracle") and not _OFFICIAL_SAM.search(results.weights or "")
    return row.prompt == results.prompt


def order(key: RowKey) -> tuple[Any, ...]:
    """Sort key: the paper's rows in the paper's order, then the others by network, method and ranks."""
    place = next((i for i, row in enumerate(PAPER_ROWS) if row.name == key.paper), len(PAPER_ROWS))
    methods = list(METHODS)
    method = methods.index(key.method) if key.method in methods else len(methods)
    numbers = sorted((k, v) for k, v in key.rank_values.items() if isinstance(v, int))
    own_head = key.mask_head == "official"
    fixed = (
        not own_head,
        key.scale,
        key.profile,
        key.prompt,
        key.text_encoder,
        key.base,
        key.name,
        key.settings,
        key.copy,
    )
    return (place, _network(key), method, key.r_lora, numbers, key.ranks, *fixed)


def labels(keys: Sequence[RowKey]) -> dict[RowKey, str]:
    """A unique readable name for each row of one section: the plan's, else the method with what tells it apart."""
    described = descriptions(keys)
    names = {key: key.name if key.name and key.name != key.paper else described[key] for key in keys}
    for text in _repeated(names):
        same = [key for key in keys if names[key] == text]
        apart = differences({key: _settings(key) for key in same})
        names.update({key: f"{text}, {apart[key]}" for key in same if apart[key]})
    for text in _repeated(names):
        names.update(
            {key: f"{text} ({described[key]})" for key in keys if names[key] == text and text != described[key]}
        )
    for text in _repeated(names):
        same = [key for key in keys if names[key] == text]
        names.update({key: f"{text} [{i}]" for i, key in enumerate(same, start=1)})
    return names


def descriptions(keys: Sequence[RowKey]) -> dict[RowKey, str]:
    """The method of each row of one section in words: network, method, ranks."""

    def settings(key: RowKey) -> tuple[str, ...]:
        return key.paper, key.mask_head, key.scale, key.profile, key.prompt, key.text_encoder

    ranks: dict[tuple[str, ...], set[str]] = {}
    for key in keys:
        ranks.setdefault(settings(key), set()).add(key.ranks)
    return {key: _label(key, with_ranks=not key.paper or len(ranks[settings(key)]) > 1) for key in keys}


def _repeated(names: Mapping[RowKey, str]) -> list[str]:
    return [text for text, count in Counter(names.values()).items() if count > 1]


def _settings(key: RowKey) -> Settings | None:
    return json.loads(key.settings) if key.settings else {}


def rank_text(key: RowKey) -> str:
    """All ranks as text: "top 410, neck 256, LoRA 256" or "top 10%, LoRA 4"; "" for a method without ranks."""
    values = dict(key.rank_values)
    if "svd_ratio" in values:
        values["svd_ratio"] = f"{values['svd_ratio']:.0%}"
    parts = [RULE_WORDS[rule](values)] if (rule := values.pop("rank_rule", None)) in RULE_WORDS else []
    parts += [f"{word} {values.pop(name)}" for name, word in RANK_WORDS.items() if name in values]
    parts += ["ranks by layer" if name == "rank_pattern" else f"{name} {value}" for name, value in values.items()]
    return ", ".join(parts)


def _label(key: RowKey, with_ranks: bool) -> str:
    paper = next((row for row in PAPER_ROWS if row.name == key.paper), None)
    method = METHODS.get(key.method, key.method)
    if key.r_lora:
        method += f" {key.r_lora}"
    if paper:
        name = paper.label
    elif key.arch in BASELINES and key.method == "full":
        name = _network(key)
    else:
        name = f"{_network(key)}, {method}"
    ranks = [part for part in rank_text(key).split(", ") if not part.startswith("LoRA ")] if with_ranks else []
    remarks = [
        *ranks,
        f"{key.mask_head} head" if key.mask_head != "official" else "",
        f"{key.scale} scale" if key.scale != "fit" else "",
        f"{key.profile} profile" if key.profile != "official" else "",
        PROMPTS.get(key.prompt, ""),
        "learned prompt" if key.text_encoder == "learned" and key.sam_type != "nano" else "",
        "random base weights" if key.base else "",
    ]
    shown = ", ".join(filter(None, remarks))
    return f"{name} ({shown})" if shown else name


def _network(key: RowKey) -> str:
    names = {SAM_ARCH: SAM_NAMES, SAM2_ARCH: SAM2_NAMES}.get(key.arch)
    if names is None:
        return ("nano " if key.sam_type == "nano" else "") + BASELINES.get(key.arch, key.arch)
    return names.get(key.sam_type, f"{'SAM' if key.arch == SAM_ARCH else 'SAM2'} {key.sam_type}")
