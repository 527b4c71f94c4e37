"""The encoder's blocks against segment_anything's own."""

from functools import partial

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT
from torch import nn

import adapters
from prompt_adapted_segment_anything import GEOMETRIES, SamGeometry, build_image_encoder

SMALL = SamGeometry(32, 3, 2, (1,), patch_size=16, window_size=14, prompt_dim=16)


def stock_encoder(geometry, img_size, global_everywhere=False):
    return ImageEncoderViT(
        img_size=img_size,
        patch_size=geometry.patch_size,
        embed_dim=geometry.embed_dim,
        depth=geometry.depth,
        num_heads=geometry.num_heads,
        mlp_ratio=4,
        out_chans=geometry.prompt_dim,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=not global_everywhere,
        window_size=0 if global_everywhere else geometry.window_size,
        global_attn_indexes=geometry.global_attn_indexes,
    )


def randomize(module, seed=0):
    """Gives every parameter a value that matters: SAM's positions and biases start at zero."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "rel_pos" in name or "pos_embed" in name or name.endswith("bias"):
                parameter.normal_(0, 0.5)


def pair(geometry, img_size, attention="official"):
    stock = stock_encoder(geometry, img_size, attention == "released")
    randomize(stock)
    ours = build_image_encoder(geometry, img_size, attention)
    ours.load_state_dict(stock.state_dict(), strict=True)
    return stock.eval(), ours.eval()


@pytest.mark.parametrize("attention", ["official", "released"])
@pytest.mark.parametrize("img_size", [16, 208, 224, 336, 512])
def test_encoder_equals_stock_at_any_size(img_size, attention):
    stock, ours = pair(SMALL, img_size, attention)
    x = torch.randn(2, 3, img_size, img_size)
    with torch.no_grad():
        assert torch.allclose(ours(x), stock(x), atol=1e-5)


@pytest.mark.parametrize("img_size", [336, 224])
def test_gradients_equal_stock(img_size):
    stock, ours = pair(SMALL, img_size)
    x = torch.randn(1, 3, img_size, img_size)
    target = torch.randn_like(stock(x))
    for encoder in (stock, ours):
        (encoder(x) * target).mean().backward()
    ours_gradients = {name: p.grad for name, p in ours.named_parameters()}
    for name, parameter in stock.named_parameters():
        assert torch.allclose(ours_gradients[name], parameter.grad, atol=1e-5), name


def test_adapted_projections_keep_windows_right():
    """An adapted qkv sees real tokens only; padding must still be what the stock block makes of zeros: the bias."""
    stock, ours = pair(SMALL, 336)
    adapters.inject(ours, "salt", ["blocks.*.attn.*", "blocks.*.mlp.*", "neck.[02]"], adapters.RankRule(8, 4, 2))
    x = torch.randn(1, 3, 336, 336)
    with torch.no_grad():
        assert torch.allclose(ours(x), stock(x), atol=1e-5)


@pytest.mark.slow
def test_untouched_vit_b_at_1024_equals_stock():
    stock, ours = pair(GEOMETRIES["base"], 1024)
    x = torch.randn(1, 3, 1024, 1024)
    with torch.no_grad():
        assert torch.allclose(ours(x), stock(x), atol=1e-5)
