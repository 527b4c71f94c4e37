"""CLIP's features of texts: encoded once, and kept on disk so that a second run needs no CLIP file."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from checkpointing.tensor_files import read_tensor_file
from networks.text_prompt.clip_weights import read_text_tower, weights_file
from utils.errors import UserError
from utils.files import atomic_path, cache_folder, sha256

log = logging.getLogger(__name__)

TEXT_FEATURES = 512
_FORMAT = "clip-text-features-1"


@dataclass(frozen=True)
class TextFeatures:
    """Features (L, 512) float32 of L texts, and the hash of the CLIP weights that made them."""

    features: Tensor
    weights_sha256: str


def clip_text_features(texts: Sequence[str], clip_path: Path) -> TextFeatures:
    """CLIP ViT-B/32's `encode_text` of each text, not normalized: (len(texts), 512) float32.

    Features are kept in the cache folder, a file for each text and weights hash. Where `clip_path` is missing, texts
    that were encoded before by one and the same CLIP come from there.

    Args:
        texts: at most 77 tokens are read of each, as CLIP does.
        clip_path: a file or folder of CLIP weights (`networks.text_prompt.clip_weights`).

    Raises:
        UserError: weights that are missing and not all texts cached, or that are no CLIP ViT-B/32.
    """
    if not clip_path.exists():
        return _without_weights(texts, clip_path)
    file = weights_file(clip_path)
    weights = sha256(file)
    known = {text: _cached(_cache_file(weights, text), text) for text in texts}
    new = [text for text, features in known.items() if features is None]
    if new:
        for text, features in zip(new, encode_texts(new, read_text_tower(clip_path)), strict=True):
            known[text] = TextFeatures(features, weights)
            _store(known[text], text)
    return TextFeatures(torch.stack([known[text].features for text in texts]), weights)


def encode_texts(texts: Sequence[str], tower: dict[str, Tensor]) -> Tensor:
    """(len(texts), 512) float32 features by the text tower with these weights, always with QuickGELU.

    Raises: UserError where the weights are not those of ViT-B/32's text tower.
    """
    from open_clip.tokenizer import SimpleTokenizer  # seconds of import, and only the first run needs it
    from open_clip.transformer import QuickGELU, TextTransformer

    with torch.random.fork_rng(devices=[]):  # its initial values must not move a run's random numbers
        model = TextTransformer(output_dim=TEXT_FEATURES, act_layer=QuickGELU)  # the other defaults are ViT-B/32's
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in tower.items()}
    if differing := sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)):
        key = differing[0]
        raise UserError(
            f"the CLIP weights are not those of ViT-B/32: '{key}' is {found.get(key, 'missing')}, "
            f"not {expected.get(key, 'expected')}"
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
    complete = {weights: found for weights, found in by_weights.items() if set(texts) <= found.keys()}
    if len(complete) != 1:
        why = "and features of several CLIPs are cached" if complete else "and not all labels are in the cache"
        raise UserError(
            f"prompts.clip_path {clip_path}: no such file, {why}; python main.py download clip_vit_b32 fetches it, "
            "or set prompts.text_encoder=learned"
        )
    weights, found = complete.popitem()
    log.info("%s is missing: CLIP's features of %s come from the cache", clip_path, ", ".join(texts))
    return TextFeatures(torch.stack([found[text] for text in texts]), weights)


def _cache_folder() -> Path:
    return cache_folder() / "clip"


def _cache_file(weights: str, text: str) -> Path:
    return _cache_folder() / (hashlib.sha256(f"{weights}\n{text}".encode()).hexdigest()[:40] + ".safetensors")


def _cached(file: Path, text: str) -> TextFeatures | None:
    """What a cache file holds, if it is whole and of this text."""
    if not file.is_file():
        return None
    try:
        tensors, metadata = read_tensor_file(file)
    except UserError:
        return None
    features = tensors.get("features")
    is_ours = metadata.get("format") == _FORMAT and metadata.get("text") == text
    if not is_ours or features is None or features.shape != (TEXT_FEATURES,):
        return None
    return TextFeatures(features, metadata["weights_sha256"])


def _store(features: TextFeatures, text: str) -> None:
    metadata = {"format": _FORMAT, "text": text, "weights_sha256": features.weights_sha256}
    try:
        with atomic_path(_cache_file(features.weights_sha256, text)) as temporary:
            save_file({"features": features.features.contiguous()}, temporary, metadata=metadata)
    except OSError as error:  # a full or read-only home must not stop a run
        log.warning("CLIP's features are not cached: %s", error)
