"""The trunk's blocks against the sam2 package's own."""

import shutil

import pytest
import torch
from sam2.modeling.backbones.hieradet import Hiera, MultiScaleBlock
from torch import nn

import adapters
from benchmarks.naive import use_stock_blocks
from prompt_adapted_SAM2 import build_sam2_parts
from prompt_adapted_SAM2.blocks import TrunkBlock

SMALL = {"embed_dim": 16, "num_heads": 1, "stages": (1, 2, 4, 2), "global_att_blocks": (5,), "drop_path_rate": 0.0}


def pair(again=False):
    """The package's trunk and one of our blocks with the same weights, biases and positions among them.

    `again`: the backward pass computes our blocks again.
    """
    torch.manual_seed(0)
    stock, ours = Hiera(**SMALL), Hiera(**SMALL)
    for name, parameter in stock.named_parameters():
        if "pos_embed" in name or name.endswith("bias"):
            nn.init.normal_(parameter, std=0.5)
    ours.load_state_dict(stock.state_dict())
    ours.blocks = nn.ModuleList(TrunkBlock(block, again, again) for block in ours.blocks)
    return stock, ours


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("img_size", [32, 224, 352, 512])  # windows of 8, 4, 14, 7 tokens at strides of 4 to 32
def test_the_trunk_and_its_gradients_equal_the_packages(img_size, again):
    stock, ours = pair(again)
    assert list(ours.state_dict()) == list(stock.state_dict())
    images = torch.randn(2, 3, img_size, img_size)
    found = {}
    for trunk in (stock, ours):
        outputs = trunk(images)
        torch.manual_seed(1)
        sum((out * torch.randn(out.shape)).mean() for out in outputs).backward()
        found[trunk] = outputs
    for first, second in zip(found[ours], found[stock], strict=True):
        assert torch.allclose(first, second, atol=1e-5)
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    for name, parameter in stock.named_parameters():
        assert torch.allclose(gradients[name], parameter.grad, atol=1e-5), name


@pytest.mark.parametrize("method", ["salt", "lora"])
def test_adapted_projections_keep_windows_right(method):
    stock, ours = pair()
    adapters.inject(ours, method, ["blocks.*.attn.*", "blocks.*.mlp.*"], adapters.RankRule(8, 4, 2))
    images = torch.randn(1, 3, 352, 352)
    with torch.no_grad():
        for first, second in zip(ours.eval()(images), stock.eval()(images), strict=True):
            assert torch.allclose(first, second, atol=1e-5)


@pytest.mark.parametrize("sam_type", ["nano", "tiny", "base_plus"])
def test_every_block_is_ours_and_gives_the_packages_back(sam_type):
    trunk = build_sam2_parts(sam_type, 64).image_encoder.trunk
    assert all(isinstance(block, TrunkBlock) for block in trunk.blocks)
    use_stock_blocks(trunk)
    assert not any(isinstance(block, TrunkBlock) for block in trunk.blocks)


@pytest.mark.parametrize(("sam_type", "fine"), [("nano", 3), ("tiny", 3), ("base_plus", 5)])
def test_blocks_on_grids_finer_than_the_embeddings_are_computed_again(sam_type, fine):
    """And the attention of the next, which reads the finer grid."""
    blocks = build_sam2_parts(sam_type, 64).image_encoder.trunk.blocks
    assert [block.mlp_again for block in blocks] == [True] * fine + [False] * (len(blocks) - fine)
    assert [block.attention_again for block in blocks] == [True] * (fine + 1) + [False] * (len(blocks) - fine - 1)


@pytest.mark.parametrize("img_size", [128, 160])  # windows divide the fine grids, and do not
def test_a_block_computed_again_keeps_the_inputs_of_its_halves_and_of_its_last_layer(img_size):
    block = build_sam2_parts("nano", img_size).image_encoder.trunk.blocks[0]
    x = torch.randn(1, img_size // 4, img_size // 4, 24, requires_grad=True)
    sizes = kept_sizes(block, x)
    assert sizes == [x.numel(), x.numel(), 4 * x.numel()]  # the input of each half, and the last layer's


def test_a_block_with_dropout_is_not_computed_again():
    kept = []
    for dropout in (0.0, 0.5):
        block = build_sam2_parts("nano", 128).image_encoder.trunk.blocks[0]
        adapters.inject(block, "lora", ["attn.qkv"], adapters.RankRule(8, 4, 2), dropout=dropout)
        kept.append(len(kept_sizes(block, torch.randn(1, 32, 32, 24, requires_grad=True))))
    assert kept[0] == 3 < kept[1]


def kept_sizes(block, x):
    """The numbers of elements of the activations that block(x) keeps, in their order."""
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.setdefault(t.data_ptr(), t), lambda t: t):
        block(x)
    weights = {tensor.data_ptr() for tensor in (*block.parameters(), *block.buffers())}
    return [tensor.numel() for pointer, tensor in kept.items() if pointer not in weights]


@pytest.mark.slow
@pytest.mark.parametrize("grid", [8, 6])  # windows of 4 divide it, and do not
def test_a_compiled_block_that_pools_gives_the_same_gradients(grid):
    if not shutil.which("g++"):
        pytest.skip("torch.compile on a CPU needs g++, which is not installed")
    torch.manual_seed(0)
    block = TrunkBlock(MultiScaleBlock(16, 32, 2, q_stride=(2, 2), window_size=4))
    x, gradients = torch.randn(1, grid, grid, 16, requires_grad=True), []
    for forward in (block.stock, torch.compile(block)):
        gradients.append(torch.autograd.grad(forward(x).square().mean(), [x, *block.parameters()]))
    for found, expected in zip(*gradients, strict=True):
        assert torch.allclose(found, expected, rtol=1e-3, atol=1e-6)
