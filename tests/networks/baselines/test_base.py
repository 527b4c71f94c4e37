import pytest
import torch
from torch import nn

from networks import baselines
from networks.baselines import PaddedNetwork


class Recorder(nn.Module):
    """Gives back what it gets, and keeps it."""

    def forward(self, x):
        self.seen = x
        return x


@pytest.mark.parametrize(("size", "padded"), [((33, 47), (48, 48)), ((32, 64), (32, 64)), ((5, 16), (32, 32))])
def test_padding_is_zeros_right_and_bottom_and_is_cropped_again(size, padded):
    recorder = Recorder()
    images = torch.rand(2, 3, *size) + 1
    logits = PaddedNetwork(recorder, 16)(images)
    assert torch.equal(logits, images)
    assert recorder.seen.shape == (2, 3, *padded)
    assert torch.equal(recorder.seen[..., : size[0], : size[1]], images)
    assert recorder.seen.sum() == pytest.approx(images.sum().item(), rel=1e-5)


@pytest.mark.parametrize("name", [name for name in baselines.BASELINES if name != "unetr"])
def test_networks_without_fixed_size_take_oblong_images_of_any_size(name):
    model = baselines.build(name, 1, 512, "nano").eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, 70, 41)).shape == (1, 1, 70, 41)


def test_unetr_refuses_the_size_that_it_was_not_built_for():
    model = baselines.build("unetr", 1, 60, "nano")
    assert model.fixed_size == 64
    for size in ((60, 60), (64, 49)):
        assert model(torch.randn(1, 3, *size)).shape == (1, 1, *size)
    for size in ((48, 64), (64, 80)):
        with pytest.raises(ValueError, match=f"built for images that pad to 64 x 64 pixels; {size[0]} x {size[1]} "):
            model(torch.randn(1, 3, *size))
