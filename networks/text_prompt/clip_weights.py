"""CLIP ViT-B/32's text tower, read from any file format that it is published in, under open_clip's names."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from checkpointing.published import DOWNLOADS
from checkpointing.tensor_files import read_state_dict
from utils.errors import UserError

# The weights in a Hugging Face folder: transformers' names, then open_clip's.
_FOLDER_FILES = (
    "model.safetensors",
    "pytorch_model.bin",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)
_TEXT_PREFIXES = ("positional_embedding", "text_projection", "token_embedding.", "transformer.", "ln_final.")
# transformers' names of the text tower, in the order of replacement. q, k, v and the projection follow below.
_TRANSFORMERS_NAMES = {
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.embeddings.token_embedding": "token_embedding",
    "text_model.final_layer_norm": "ln_final",
    "text_model.encoder.layers": "transformer.resblocks",
    "layer_norm": "ln_",
    "self_attn": "attn",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def find_weights(path: Path) -> Path:
    """The weights file that `prompts.clip_path` names: itself, or the one in a Hugging Face folder.

    Raises:
        UserError: a folder without one.
    """
    if not path.is_dir():
        return path
    for name in _FOLDER_FILES:
        if (path / name).is_file():
            return path / name
    raise UserError(f"{path}: holds none of {', '.join(_FOLDER_FILES)}; is it a folder of CLIP weights?")


def read_text_tower(path: Path, sha256: str) -> dict[str, Tensor]:
    """The text tower's weights (float32) in a CLIP file or folder, by the names of open_clip's TextTransformer.

    It reads OpenAI's TorchScript archive, state dicts of open_clip and OpenAI (plain, or wrapped in "state_dict" and
    the like), and folders or files of transformers' CLIPModel.

    Args:
        path: `prompts.clip_path`.
        sha256: the hash of `find_weights(path)`. TorchScript archives hold code, so that only the published one is
            opened.

    Raises:
        UserError: an unreadable file or another network's; a folder whose config names another activation than
            QuickGELU.
    """
    _check_activation(path)
    file = find_weights(path)
    if sha256 == DOWNLOADS["clip_vit_b32"].sha256:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # that torch.jit is deprecated: not actionable for users
            state = torch.jit.load(file, map_location="cpu").state_dict()
    else:
        state = read_state_dict(file)
    if "text_model.final_layer_norm.weight" in state:
        state = _from_transformers(state)
    state = {key.removeprefix("text."): value for key, value in state.items()}  # open_clip's CustomTextCLIP
    tower = {key: value.float() for key, value in state.items() if key.startswith(_TEXT_PREFIXES)}
    if not tower:
        raise UserError(f"{file}: is no CLIP weights file (its first key is '{next(iter(state))}')")
    return tower


def _from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """transformers' CLIPModel under open_clip's names: joins q, k, v and transposes the projection.

    open_clip has no converter for it.
    """
    renamed = {}
    for key, value in state.items():
        if key.startswith("text_"):
            for theirs, ours in _TRANSFORMERS_NAMES.items():
                key = key.replace(theirs, ours)
            renamed[key] = value
    for key in [key for key in renamed if ".q_proj." in key]:
        parts = [key.replace(".q_proj.", f".{name}_proj.") for name in "qkv"]
        if all(part in renamed for part in parts):
            renamed[key.replace("q_proj.", "in_proj_")] = torch.cat([renamed.pop(part) for part in parts])
    if "text_projection.weight" in renamed:
        renamed["text_projection"] = renamed.pop("text_projection.weight").T
    return renamed


def _check_activation(path: Path) -> None:
    """Refuses a folder whose config names another activation: the same weights would give other features."""
    if not path.is_dir():
        return
    activation = (_read_json(path / "config.json").get("text_config") or {}).get("hidden_act", "quick_gelu")
    open_clip = _read_json(path / "open_clip_config.json").get("model_cfg")
    if open_clip is not None and not open_clip.get("quick_gelu", False):
        activation = "gelu"
    if activation != "quick_gelu":
        raise UserError(f"{path}: this CLIP was trained with {activation}; the text prompts need OpenAI's, quick_gelu")


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from error
    return content if isinstance(content, dict) else {}
