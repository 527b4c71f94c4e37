"""SegNet: VGG-16's convolutions as encoder, and a mirrored decoder that unpools by the encoder's pooling indices.

Badrinarayanan, Kendall, Cipolla: SegNet, arXiv 1511.00561 (PAMI 2017), figures 2 and 3.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from networks.baselines.base import IMAGE_CHANNELS
from utils.config.options import NetworkSize

_CONVOLUTIONS = (2, 2, 3, 3, 3)  # of each block, in VGG-16
_WIDTHS: dict[NetworkSize, tuple[int, ...]] = {"paper": (64, 128, 256, 512, 512), "nano": (8, 16, 32, 64, 64)}


class SegNet(nn.Module):
    """images (B, 3, H, W) -> logits (B, out_channels, H, W); H and W multiples of 2^blocks.

    Batch normalization and ReLU follow every convolution (3 x 3, with bias) except the last, which gives the logits.
    The layers of `encoder` have the numbers of `torchvision.models.vgg16_bn().features`.

    Args:
        out_channels: channels of the logits.
        widths: channels of each block.
        convolutions: number of convolutions of each block, in the encoder and again in the decoder.
    """

    def __init__(
        self,
        out_channels: int,
        widths: Sequence[int] = _WIDTHS["paper"],
        convolutions: Sequence[int] = _CONVOLUTIONS,
    ) -> None:
        super().__init__()
        encoder: list[nn.Module] = []
        decoder: list[nn.Module] = []
        previous = IMAGE_CHANNELS
        for width, count in zip(widths, convolutions, strict=True):
            encoder += _block([previous] + [width] * count)
            encoder.append(nn.MaxPool2d(2, return_indices=True))
            decoder = [nn.MaxUnpool2d(2), *_block([width] * count + [previous]), *decoder]
            previous = width
        decoder[-3:] = [_convolution(widths[0], out_channels)]  # in place of convolution to 3 channels, norm and ReLU
        self.encoder = nn.ModuleList(encoder)
        self.decoder = nn.ModuleList(decoder)

    def forward(self, images: Tensor) -> Tensor:
        x = images
        all_indices = []
        for layer in self.encoder:
            if isinstance(layer, nn.MaxPool2d):
                x, indices = layer(x)  # both (B, width, H / 2^block, W / 2^block)
                all_indices.append(indices)
            else:
                x = layer(x)
        for layer in self.decoder:
            x = layer(x, all_indices.pop()) if isinstance(layer, nn.MaxUnpool2d) else layer(x)
        return x


def _block(channels: Sequence[int]) -> list[nn.Module]:
    """Convolution, norm and ReLU from each number of channels to the next."""
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers += [_convolution(before, after), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return layers


def _convolution(before: int, after: int) -> nn.Conv2d:
    convolution = nn.Conv2d(before, after, 3, padding=1)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")  # He et al., as in the paper
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return convolution


def build_segnet(out_channels: int, img_size: int, size: NetworkSize) -> nn.Module:
    """SegNet at the paper's or the nano size; it takes any multiple of 32 pixels."""
    return SegNet(out_channels, _WIDTHS[size])
