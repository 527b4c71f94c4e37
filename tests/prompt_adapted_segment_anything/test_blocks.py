"""The encoder's blocks against segment_anything's own."""

import copy
from functools import partial

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.image_encoder import Block
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import adapters
from prompt_adapted_segment_anything import GEOMETRIES, SamGeometry, build_image_encoder
from prompt_adapted_segment_anything.blocks import EncoderBlock

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


@pytest.mark.parametrize("method", ["ssf", "adaptformer", "dora", None])
@pytest.mark.parametrize("bias", [True, False])
def test_padding_tokens_are_what_the_adapted_projection_makes_of_zeros(method, bias):
    """The stock block pads before the projection, whatever that is; windows of 3 don't divide the grid."""
    stock = Block(16, 2, qkv_bias=bias, window_size=3).double()
    if method:
        adapters.inject(stock, method, ["attn.qkv"], adapters.RankRule(r_lora=2))
        with torch.no_grad():
            for parameter in adapters.adapter_parameters(stock).values():
                parameter.add_(torch.randn_like(parameter))
    stock.eval()
    x = torch.randn(1, 5, 7, 16, dtype=torch.float64)
    assert torch.allclose(EncoderBlock(stock)(x), stock(x), atol=1e-10)


def block_pair(window, table_size=None, use_rel_pos=True, dtype=torch.float64, dim=32):
    """A stock block with random tables of relative positions, and ours with a copy of its modules."""
    stock = Block(dim, 2, use_rel_pos=use_rel_pos, window_size=window, input_size=table_size)
    randomize(stock)
    stock.to(dtype)
    return stock, EncoderBlock(copy.deepcopy(stock))


def with_gradients(block, x, forward=None):
    x = x.clone().requires_grad_()
    out = (forward or block)(x)
    torch.manual_seed(1)
    (out * torch.randn(out.shape).to(out)).sum().backward()
    return {"output": out, "x": x.grad, **{name: p.grad for name, p in block.named_parameters()}}


@pytest.mark.parametrize("use_rel_pos", [True, False])
@pytest.mark.parametrize(
    ("grid", "window", "table_size"),
    [
        ((4, 6), 0, (4, 6)),
        ((4, 6), 0, (3, 7)),  # tables of other lengths are resized
        ((4, 6), 2, None),
        ((5, 7), 3, None),  # windows that do not divide the grid
        ((6, 7), 3, None),
        ((2, 2), 5, None),  # a window larger than the grid
        ((1, 1), 1, None),
    ],
)
def test_a_block_and_its_gradients_equal_stock_in_float64(grid, window, table_size, use_rel_pos):
    stock, ours = block_pair(window, table_size, use_rel_pos)
    assert list(ours.state_dict()) == list(stock.state_dict())
    x = torch.randn(2, *grid, 32, dtype=torch.float64)
    expected = with_gradients(stock, x)
    for name, found in with_gradients(ours, x).items():
        assert torch.allclose(found, expected[name], atol=1e-11), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("grid", "window", "table_size"), [((5, 7), 3, None), ((4, 6), 0, (4, 6))])
def test_autocast_rounds_a_block_as_much_as_stock(grid, window, table_size, dtype):
    """Measured against float64; the gradients of the parameters stay float32."""
    stock, ours = block_pair(window, table_size, dtype=torch.float32)
    x = torch.randn(2, *grid, 32)
    exact = with_gradients(copy.deepcopy(stock).double(), x.double())
    errors = []
    for block in (stock, ours):
        with torch.autocast("cpu", dtype):
            found = with_gradients(block, x)
        assert all(p.grad.dtype == torch.float32 for p in block.parameters())
        errors.append({name: (found[name].double() - exact[name]).norm() / exact[name].norm() for name in exact})
    for name in exact:
        assert errors[1][name] < 1.5 * errors[0][name] + 2 * torch.finfo(dtype).eps, name


@pytest.mark.parametrize("window", [0, 3])
def test_a_fused_kernel_takes_the_attention(window):
    """With relative positions too: the kernel gets no mask and equal widths."""
    _, ours = block_pair(window, (5, 7), dtype=torch.float32)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # raises where it does not apply
        ours(torch.randn(1, 5, 7, 32))


@pytest.mark.slow
def test_untouched_vit_b_at_1024_equals_stock():
    stock, ours = pair(GEOMETRIES["base"], 1024)
    x = torch.randn(1, 3, 1024, 1024)
    with torch.no_grad():
        assert torch.allclose(ours(x), stock(x), atol=1e-5)
