import pytest
import torch
from torch import nn

from networks.baselines.segnet import SegNet


def transparent(blocks):
    """A SegNet of one channel whose convolutions and norms change nothing: pooling and unpooling are left."""
    model = SegNet(1, widths=(1,) * blocks, convolutions=(1,) * blocks).eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
            module.weight.data[:, 0, 1, 1] = 1  # of the image: its first channel
        elif isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
    return model


def run(model, rows):
    first = torch.tensor(rows, dtype=torch.float32)
    images = torch.stack([first, torch.full_like(first, 99), torch.full_like(first, 99)])[None]  # (1, 3, H, W)
    with torch.no_grad():
        return model(images)[0, 0].tolist()


def test_unpooling_puts_each_maximum_back_where_it_was():
    image = [
        [1, 5, 2, 0],
        [3, 4, 9, 1],
        [7, 6, 1, 1],
        [8, 2, 1, 3],
    ]
    expected = [
        [0, 5, 0, 0],
        [0, 0, 9, 0],
        [0, 0, 0, 0],
        [8, 0, 0, 3],
    ]
    assert run(transparent(1), image) == expected


def test_the_deepest_pooling_is_undone_first():
    image = [
        [1, 5, 2, 0, 1, 1, 1, 1],
        [3, 4, 9, 1, 1, 1, 1, 1],
        [7, 6, 1, 1, 1, 1, 1, 1],
        [8, 2, 1, 3, 1, 1, 1, 6],
    ]
    expected = [[0.0] * 8 for _ in range(4)]
    expected[1][2] = 9.0
    expected[3][7] = 6.0
    assert run(transparent(2), image) == expected


def test_every_convolution_but_the_last_has_norm_and_relu():
    with torch.device("meta"):
        model = SegNet(4)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 26, "VGG-16's 13, and 13 in the decoder"
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == 25
    assert model.decoder[-1] is convolutions[-1]
    encoder, decoder = convolutions[:13], convolutions[13:]
    mirrored = [(c.out_channels, c.in_channels) for c in reversed(encoder)]
    assert [(c.in_channels, c.out_channels) for c in decoder] == [*mirrored[:-1], (64, 4)]


def test_the_first_logits_are_of_moderate_size():
    torch.manual_seed(0)
    model = SegNet(1, widths=(8, 16, 32, 64, 64))
    assert model(torch.randn(2, 3, 64, 64)).std().item() == pytest.approx(0.8, abs=0.7)
