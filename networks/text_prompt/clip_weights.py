"""CLIP ViT-B/32's text tower from any file that it is kept in, under open_clip's names."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from checkpointing.tensor_files import read_state_dict
from utils.errors import UserError

# What a Hugging Face folder keeps its weights in: transformers' names, then open_clip's.
_FOLDER_FILES = (
    "model.safetensors",
    "pytorch_model.bin",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)
_TEXT_PREFIXES = ("positional_embedding", "text_projection", "token_embedding.", "transformer.", "ln_final.")
# transformers' name of each weight inside a block of the text tower.
_BLOCK_NAMES = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def weights_file(path: Path) -> Path:
    """The file of weights behind `prompts.clip_path`: itself, or the one in a Hugging Face folder.

    Raises: UserError for a folder without one.
    """
    if not path.is_dir():
        return path
    for name in _FOLDER_FILES:
        if (path / name).is_file():
            return path / name
    raise UserError(f"{path}: holds none of {', '.join(_FOLDER_FILES)}; is it a folder of CLIP weights?")


def read_text_tower(path: Path) -> dict[str, Tensor]:
    """The text tower's weights (float32) in a CLIP file or folder, by the names of open_clip's TextTransformer.

    Known are OpenAI's TorchScript archive, state dicts of open_clip and OpenAI (plain, or wrapped in "state_dict" and
    the like), and folders or files of transformers' CLIPModel. The image tower is dropped.

    Raises:
        UserError: an unreadable or foreign file, or a folder whose config names another activation than QuickGELU.
    """
    _check_activation(path)
    file = weights_file(path)
    state = read_state_dict(file)
    if "text_model.final_layer_norm.weight" in state:
        state = _from_transformers(state)
    state = {key.removeprefix("text."): value for key, value in state.items()}  # open_clip's CustomTextCLIP
    tower = {key: value.float() for key, value in state.items() if key.startswith(_TEXT_PREFIXES)}
    if not tower:
        raise UserError(f"{file}: is no CLIP weights file (its first key is '{next(iter(state))}')")
    return tower


def _from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames transformers' CLIPModel text tower; its projection is transposed and its q, k, v are apart."""
    embeddings, norm = "text_model.embeddings", "text_model.final_layer_norm"
    renamed = {
        "positional_embedding": f"{embeddings}.position_embedding.weight",
        "token_embedding.weight": f"{embeddings}.token_embedding.weight",
        "ln_final.weight": f"{norm}.weight",
        "ln_final.bias": f"{norm}.bias",
    }
    tower = {ours: state[theirs] for ours, theirs in renamed.items() if theirs in state}
    if "text_projection.weight" in state:
        tower["text_projection"] = state["text_projection.weight"].T
    blocks = {int(m[1]) for key in state if (m := re.match(r"text_model\.encoder\.layers\.(\d+)\.", key))}
    for i in sorted(blocks):
        source, target = f"text_model.encoder.layers.{i}", f"transformer.resblocks.{i}"
        for kind in ("weight", "bias"):
            for ours, theirs in _BLOCK_NAMES.items():
                if (key := f"{source}.{theirs}.{kind}") in state:
                    tower[f"{target}.{ours}.{kind}"] = state[key]
            parts = [f"{source}.self_attn.{name}_proj.{kind}" for name in "qkv"]
            if all(part in state for part in parts):
                tower[f"{target}.attn.in_proj_{kind}"] = torch.cat([state[part] for part in parts])
    return tower


def _check_activation(path: Path) -> None:
    """Refuses a folder whose config says another activation: the same weights would give other features."""
    if not path.is_dir():
        return
    settings = _read_json(path / "config.json").get("text_config") or {}
    activation = settings.get("hidden_act", "quick_gelu")
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
