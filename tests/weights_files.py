"""Weights files of small models with random weights, made in a second each; conftest.py makes fixtures of them."""

from pathlib import Path

import torch

from model import build_model, save_model
from utils.config import load_config

KINDS = {
    "sam": "sam: {img_size: 32, sam_type: nano, weights: random}\n",
    "sam2": "arch: Prompt Adapted SAM 2\nsam: {img_size: 64, sam_type: nano, weights: random}\n",
    "unet": "arch: unet\nsam: {img_size: 32}\nbaseline: {size: nano}\n",
}


def write_weights(
    folder: Path, kind: str = "sam", labels: tuple[str, ...] = ("Vein",), overrides: tuple[str, ...] = ()
) -> Path:
    """Writes m.safetensors of a model of one of KINDS, whose adapters have moved, to `folder`; returns its path."""
    names = ", ".join(("Background", *labels))
    values = ", ".join(str(3 * i) for i in range(len(labels) + 1))
    (folder / "m.yaml").write_text(
        f"{KINDS[kind]}prompts: {{text_encoder: learned}}\n"
        f"data: {{root_path: {folder}, label_list: [{values}], label_names: [{names}]}}\n"
        "ft: {svd_ratio: 0.2, r_lora: 2}\n"
    )
    config = load_config(folder / "m.yaml", None, list(overrides))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = build_model(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.05 * torch.randn_like(parameter))
    save_model(model, config, folder / "m.safetensors", epoch=1)
    return folder / "m.safetensors"
