"""A CLIP ViT-B/32 text tower with random weights, in every file format that users have."""

import json
from functools import cache
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

FORMATS = ("torchscript", "state_dict", "wrapped", "safetensors", "hf", "hf_bin", "open_clip_folder")


@cache
def reference(seed: int = 0) -> nn.Module:
    """open_clip's own model in its QuickGELU variant, random weights, of which float16 loses nothing."""
    torch.manual_seed(seed)
    model = open_clip.create_model("ViT-B-32-quickgelu", pretrained=None).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half())
    return model


def state(seed: int = 0) -> dict[str, Tensor]:
    """The text tower and two of the image tower's weights, float16, by OpenAI's names."""
    left_out = ("visual.transformer.", "visual.conv1", "visual.positional")
    found = reference(seed).state_dict()
    return {key: value.half() for key, value in found.items() if not key.startswith(left_out)}


def write(folder: Path, kind: str, seed: int = 0) -> Path:
    """Writes the state in one of FORMATS and returns what `prompts.clip_path` takes."""
    weights = state(seed)
    if kind == "torchscript":
        path = folder / "ViT-B-32.pt"
        torch.jit.save(torch.jit.script(_module_of(weights)), path)
    elif kind in ("state_dict", "wrapped"):
        path = folder / "clip.pt"
        wrapped = {"state_dict": {f"module.{key}": value for key, value in weights.items()}, "epoch": 3}
        torch.save(weights if kind == "state_dict" else wrapped, path)
    elif kind == "safetensors":
        path = folder / "clip.safetensors"
        save_file(weights, path)
    elif kind == "open_clip_folder":
        path = folder
        save_file(weights, folder / "open_clip_model.safetensors")
        (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"quick_gelu": True}}))
    else:
        path = folder
        (folder / "config.json").write_text(json.dumps({"model_type": "clip", "text_config": {}}))
        if kind == "hf":
            save_file(_transformers_names(weights), folder / "model.safetensors")
        else:
            torch.save(_transformers_names(weights), folder / "pytorch_model.bin")
    return path


def _module_of(weights: dict[str, Tensor]) -> nn.Module:
    """A tree of modules with these parameters, as TorchScript keeps a model."""
    root = nn.Module()
    for name, value in weights.items():
        *path, last = name.split(".")
        module = root
        for part in path:
            if not hasattr(module, part):
                module.add_module(part, nn.Module())
            module = getattr(module, part)
        module.register_parameter(last, nn.Parameter(value, requires_grad=False))
    root.register_buffer("context_length", torch.tensor(77))
    return root


def _transformers_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The text tower under the names of transformers' CLIPModel."""
    renamed = {
        "text_model.embeddings.token_embedding.weight": weights["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": weights["positional_embedding"],
        "text_model.embeddings.position_ids": torch.arange(77)[None],
        "text_model.final_layer_norm.weight": weights["ln_final.weight"],
        "text_model.final_layer_norm.bias": weights["ln_final.bias"],
        "text_projection.weight": weights["text_projection"].T.contiguous(),
        "vision_model.post_layernorm.weight": torch.zeros(768),
    }
    for i in range(12):
        ours, theirs = f"transformer.resblocks.{i}", f"text_model.encoder.layers.{i}"
        for kind in ("weight", "bias"):
            for name, value in zip("qkv", weights[f"{ours}.attn.in_proj_{kind}"].chunk(3), strict=True):
                renamed[f"{theirs}.self_attn.{name}_proj.{kind}"] = value.contiguous()
            pairs = {"attn.out_proj": "self_attn.out_proj", "ln_1": "layer_norm1", "ln_2": "layer_norm2"}
            pairs |= {"mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
            for mine, other in pairs.items():
                renamed[f"{theirs}.{other}.{kind}"] = weights[f"{ours}.{mine}.{kind}"]
    return renamed
