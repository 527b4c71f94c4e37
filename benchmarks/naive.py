"""Baselines that our models are timed against: the papers' equations written plainly, and Hugging Face peft.

`naive` and `peft` change one of our models in place. `naive` keeps its parameters and its function, `peft` replaces
LoRA by Hugging Face's.
"""

import re
from collections.abc import Sequence
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
from networks.text_prompt.encoder import TextEncoder
from networks.text_prompt.features import TEXT_FEATURES
from prompt_adapted_segment_anything.blocks import EncoderBlock


def naive(model: SegmentationModel) -> SegmentationModel:
    """Forms dense weights in every call, uses segment_anything's own blocks and runs CLIP's text tower every step."""
    for name, layer in list(adapters.adapted_layers(model)):
        if isinstance(layer, SpectralLayer):
            model.set_submodule(name, _DenseLayer(layer))
    use_stock_blocks(model)
    if model.text_encoder is not None:
        model.text_encoder = _TextTower(model.text_encoder.labels)
    return model


def peft(model: SegmentationModel, targets: Sequence[str], rank: int, dropout: float) -> SegmentationModel:
    """Adds Hugging Face peft's LoRA, with our scale of 1, to a model without adapters on the package's own blocks.

    Args:
        model: of strategy `lora`, before its adapters.
        targets: name patterns of the layers.
        rank: of all layers.
        dropout: of LoRA's input.
    """
    from peft import LoraConfig, inject_adapter_in_model  # seconds of import

    use_stock_blocks(model)
    apply_strategy(model, "lora")
    pattern = "|".join(re.escape(target).replace(r"\*", r"\d+") for target in targets)
    options: dict[str, Any] = {"r": rank, "lora_alpha": rank, "lora_dropout": dropout, "target_modules": pattern}
    trained = [p for p in model.parameters() if p.requires_grad]
    inject_adapter_in_model(LoraConfig(**options), model)
    for parameter in trained:  # peft freezes every parameter but its own
        parameter.requires_grad_(True)
    return model


class _DenseLayer(nn.Module):
    """(U core V^T) x with the core as a dense matrix (r, r), as the papers write it."""

    def __init__(self, layer: SpectralLayer) -> None:
        super().__init__()
        self.layer = layer
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        layer, top, rest = self.layer, self.layer.top_values(), self.layer.rest_block()
        core = torch.diag(top) if rest is None else torch.block_diag(torch.diag(top), rest)
        return layer.apply_weight(x, (layer.U @ core @ layer.Vh).reshape(layer.weight_shape))


def use_stock_blocks(model: nn.Module) -> None:
    """Replaces SAM's blocks with segment_anything's own around the same modules. SAM2's are the package's anyway."""
    for name, ours in list(model.named_modules()):
        if isinstance(ours, EncoderBlock):
            stock = Block(dim=1, num_heads=1, window_size=ours.window_size)
            stock.norm1, stock.attn, stock.norm2, stock.mlp = ours.norm1, ours.attn, ours.norm2, ours.mlp
            model.set_submodule(name, stock)


class _TextTower(TextEncoder):
    """CLIP ViT-B/32's text tower with random weights, which runs in every call: labels -> features (B, 512)."""

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__(labels)
        self.tokenize = SimpleTokenizer()
        self.tower = TextTransformer(output_dim=TEXT_FEATURES, act_layer=QuickGELU)  # the defaults are ViT-B/32's
        self.requires_grad_(False)

    def forward(self, labels: Sequence[str]) -> Tensor:
        return self.tower(self.tokenize(list(labels)))
