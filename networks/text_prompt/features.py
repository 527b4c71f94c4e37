"""CLIP's text features, encoded once and cached on disk, so that later runs need no CLIP file."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from checkpointing.tensor_files import read_tensor_file, write_safetensors
from networks.text_prompt.clip_weights import find_weights, read_text_tower
from utils.errors import UserError
from utils.files import cache_folder, sha256

log = logging.getLogger(__name__)

TEXT_FEATURES = 512
_FORMAT = "clip-text-features-1"


@dataclass(frozen=True)
class TextFeatures:
    """Features (L, 512) float32 of L texts, or (512,) of one, and the hash of the CLIP weights behind them."""

    features: Tensor
    weights_sha256: str


def clip_text_features(texts: Sequence[str], clip_path: Path) -> TextFeatures:
    """CLIP ViT-B/32's `encode_text` of each text, not normalized: (len(texts), 512) float32.

    The cache folder keeps a file for each text and weights hash. If `clip_path` is missing, the features come from
    there, provided that one and the same CLIP encoded all texts.

    Args:
        texts: CLIP reads at most 77 tokens of each.
        clip_path: a file or folder of CLIP weights (`networks.text_prompt.clip_weights`).

    Raises:
        UserError: the weights are missing and some text is not cached; the weights are not CLIP ViT-B/32's.
    """
    if not clip_path.exists():
        return _without_weights(texts, clip_path)
    weights_sha256 = sha256(find_weights(clip_path))
    known: dict[str, Tensor] = {}
    for text in texts:
        if (cached := _cached(_cache_file(weights_sha256, text), text)) is not None:
            known[text] = cached.features
    if new := [text for text in dict.fromkeys(texts) if text not in known]:
        tower = read_text_tower(clip_path, weights_sha256)
        for text, features in zip(new, encode_texts(new, tower), strict=True):
            known[text] = features
            _store(TextFeatures(features, weights_sha256), text)
    return TextFeatures(torch.stack([known[text] for text in texts]), weights_sha256)


def encode_texts(texts: Sequence[str], tower: dict[str, Tensor]) -> Tensor:
    """(len(texts), 512) float32 features by open_clip's text tower with these weights and QuickGELU.

    Raises:
        UserError: the weights are not those of ViT-B/32's text tower.
    """
    from open_clip.tokenizer import SimpleTokenizer  # takes seconds, and only the first run needs it
    from open_clip.transformer import QuickGELU, TextTransformer

    with torch.random.fork_rng(devices=[]):  # its initialization must not change the run's random numbers
        model = TextTransformer(output_dim=TEXT_FEATURES, act_layer=QuickGELU)  # the other defaults are ViT-B/32's
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in tower.items()}
    if differing := sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)):
        key = differing[0]
        raise UserError(
            f"the CLIP weights are not those of ViT-B/32: '{key}' is {found.get(key, 'missing')}, "
            f"not {expected.get(key, 'expected')}; python main.py download clip_vit_b32 fetches the right ones"
        )
    model.load_state_dict(tower)
    with torch.inference_mode():
        return model.eval()(SimpleTokenizer()(list(texts))).clone()


def _without_weights(texts: Sequence[str], clip_path: Path) -> TextFeatures:
    by_weights: dict[str, dict[str, Tensor]] = {}
    for file in sorted(_cache_folder().glob("*.safetensors")):
        for text in texts:
            if (found := _cached(file, text)) is not None:
                by_weights.setdefault(found.weights_sha256, {})[text] = found.features
    complete = {weights: features for weights, features in by_weights.items() if set(texts) <= features.keys()}
    if len(complete) != 1:
        why = "and features of several CLIPs are cached" if complete else "and not all labels are in the cache"
        raise UserError(
            f"prompts.clip_path {clip_path}: no such file, {why}; python main.py download clip_vit_b32 fetches it, "
            "or set prompts.text_encoder=learned"
        )
    weights_sha256, features = complete.popitem()
    log.info("%s is missing: CLIP's features of %s come from the cache", clip_path, ", ".join(texts))
    return TextFeatures(torch.stack([features[text] for text in texts]), weights_sha256)


def _cache_folder() -> Path:
    return cache_folder() / "clip"


def _cache_file(weights: str, text: str) -> Path:
    return _cache_folder() / (hashlib.sha256(f"{weights}\n{text}".encode()).hexdigest()[:40] + ".safetensors")


def _cached(file: Path, text: str) -> TextFeatures | None:
    """The features in a cache file, if it is intact and belongs to this text."""
    if not file.is_file():
        return None
    try:
        tensors, metadata = read_tensor_file(file)
    except UserError:
        return None
    features = tensors.get("features")
    belongs = metadata.get("format") == _FORMAT and metadata.get("text") == text
    if not belongs or features is None or features.shape != (TEXT_FEATURES,):
        return None
    return TextFeatures(features, metadata["weights_sha256"])


def _store(features: TextFeatures, text: str) -> None:
    metadata = {"format": _FORMAT, "text": text, "weights_sha256": features.weights_sha256}
    try:
        write_safetensors(_cache_file(features.weights_sha256, text), {"features": features.features}, metadata)
    except OSError as error:  # a full or read-only disk must not stop a run
        log.warning("CLIP's features are not cached: %s", error)
