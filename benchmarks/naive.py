"""The same models written plainly: what a reader of the papers would write, and what ours is timed against.

`naive` and `peft` take one of our models and give it, in place, another way of computing. `naive` keeps its
parameters and its function; `peft` replaces LoRA by Hugging Face's.
"""

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import QuickGELU, TextTransformer
from segment_anything.modeling.image_encoder import Block
from torch import Tensor, nn

import adapters
from adapters.spectral import SpectralLayer
from networks.base import SegmentationModel
from networks.strategies import apply_strategy
from networks.text_prompt.features import TEXT_FEATURES
from prompt_adapted_segment_anything.blocks import EncoderBlock


def naive(model: SegmentationModel) -> SegmentationModel:
    """Dense weights formed in every call, the package's own blocks, and CLIP's text tower run in every step."""
    for _, layer in adapters.adapted_layers(model):
        if isinstance(layer, SpectralLayer):
            layer.forward = partial(_dense_forward, layer)
    use_stock_blocks(model)
    model.text_encoder = _TextTower()
    return model


def peft(model: SegmentationModel, targets: Sequence[str], rank: int, dropout: float) -> SegmentationModel:
    """A model without adapters gets Hugging Face peft's LoRA, with our scale of 1, on the package's own blocks.

    Args:
        model: of strategy `lora`, before its adapters.
        targets: name patterns of the layers.
        rank: of every layer.
        dropout: of LoRA's input.
    """
    from peft import LoraConfig, inject_adapter_in_model  # seconds of import

    use_stock_blocks(model)
    apply_strategy(model, "lora")
    pattern = "|".join(re.escape(target).replace(r"\*", r"\d+") for target in targets)
    options: dict[str, Any] = {"r": rank, "lora_alpha": rank, "lora_dropout": dropout, "target_modules": pattern}
    trained = [p for p in model.parameters() if p.requires_grad]
    inject_adapter_in_model(LoraConfig(**options), model)
    for parameter in trained:  # peft freezes all that is not its own
        parameter.requires_grad_(True)
    return model


def _dense_forward(layer: SpectralLayer, x: Tensor) -> Tensor:
    """U core V^T x with the core (r, r) as the papers write it, and every factor dense."""
    top, rest = layer.top_values(), layer.rest_block()
    core = torch.diag(top) if rest is None else torch.block_diag(torch.diag(top), rest)
    return layer.apply_weight(x, (layer.U @ core @ layer.Vh).reshape(layer.weight_shape))


def use_stock_blocks(model: nn.Module) -> None:
    """Runs SAM's blocks by segment_anything's own `Block.forward`; SAM2's blocks are the package's own anyway."""
    for block in model.modules():
        if isinstance(block, EncoderBlock):
            block.forward = partial(Block.forward, block)


class _TextTower(nn.Module):
    """CLIP ViT-B/32's text tower with random weights, run in every call: labels -> features (B, 512)."""

    def __init__(self) -> None:
        super().__init__()
        self.tokenize = SimpleTokenizer()
        self.tower = TextTransformer(output_dim=TEXT_FEATURES, act_layer=QuickGELU)  # the defaults are ViT-B/32's
        self.requires_grad_(False)

    def forward(self, labels: Sequence[str]) -> Tensor:
        return self.tower(self.tokenize(list(labels)))
