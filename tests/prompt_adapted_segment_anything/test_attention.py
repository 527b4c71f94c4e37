"""The encoder's blocks against segment_anything's own."""

from functools import partial

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT
from torch import nn

import adapters
from prompt_adapted_segment_anything import GEOMETRIES, SamGeometry, build_image_encoder
from prompt_adapted_segment_anything.relative_attention import attend

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


@pytest.mark.parametrize("lean", [True, False])
def test_fused_attention_equals_the_dense_formula(lean):
    """Output and gradients, in float64; the queries are a corner of the keys' grid."""
    torch.manual_seed(0)
    (H, W), (h, w), d = (5, 3), (4, 3), 4
    q, grad = torch.randn(2, 2, 2, h, w, d, dtype=torch.float64)
    k, v = torch.randn(2, 2, 2, H, W, d, dtype=torch.float64)
    rel_h, rel_w = torch.randn(H, H, d, dtype=torch.float64), torch.randn(W, W, d, dtype=torch.float64)
    given = [tensor.requires_grad_() for tensor in (q, k, v, rel_h, rel_w)]
    bias = torch.einsum("bnhwd,hkd->bnhwk", q, rel_h[:h])[..., :, None]
    bias = bias + torch.einsum("bnhwd,wkd->bnhwk", q, rel_w[:w])[..., None, :]
    logits = torch.einsum("bnhwd,bnyxd->bnhwyx", q, k) * d**-0.5 + bias
    dense = torch.einsum("bnhwyx,bnyxd->bnhwd", logits.flatten(-2).softmax(-1).view_as(logits), v)
    fused = attend(lambda: (q, k, v), (rel_h, rel_w), lean)
    assert torch.allclose(fused, dense, atol=1e-12)
    pairs = zip(torch.autograd.grad(fused, given, grad), torch.autograd.grad(dense, given, grad), strict=True)
    for ours, expected in pairs:
        assert torch.allclose(ours, expected, atol=1e-12)


@pytest.mark.slow
def test_untouched_vit_b_at_1024_equals_stock():
    stock, ours = pair(GEOMETRIES["base"], 1024)
    x = torch.randn(1, 3, 1024, 1024)
    with torch.no_grad():
        assert torch.allclose(ours(x), stock(x), atol=1e-5)
