"""The table of baselines, and the function that builds them."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from networks.baselines.base import PaddedNetwork, padded_side
from networks.baselines.detail_head_alone import build_detail_head
from networks.baselines.monai_networks import (
    build_dynunet,
    build_regunet,
    build_segresnet,
    build_unet,
    build_unetr,
)
from networks.baselines.segnet import build_segnet
from networks.baselines.smp_networks import build_deeplabv3plus, build_segformer, build_unetplusplus
from utils.config.options import NetworkSize


@dataclass(frozen=True)
class Baseline:
    """One traditional network.

    Attributes:
        title: its name in tables.
        parameters: their number at the paper's size with one output channel (UNETR: built for 512 pixels).
        builder: (out_channels, img_size, size) -> network; only UNETR's uses img_size, a multiple of `multiple`.
        multiple: the network takes images whose sides are multiples of this; others are padded.
        fixed_size: whether it takes only the image size that it was built for.
        encoder_weights: the torchvision model whose weights its encoder takes at the paper's size, or None.
        unused: name patterns (fnmatch) of parameters on which the output does not depend: they get no gradient.
    """

    title: str
    parameters: int
    builder: Callable[[int, int, NetworkSize], nn.Module]
    multiple: int
    fixed_size: bool = False
    encoder_weights: str | None = None
    unused: tuple[str, ...] = ()


BASELINES: dict[str, Baseline] = {
    "unet": Baseline("U-Net", 6_495_868, build_unet, 16),
    "unetr": Baseline(
        "UNETR", 91_833_569, build_unetr, 16, fixed_size=True, unused=("network.vit.blocks.*.norm_cross_attn.*",)
    ),
    "regunet": Baseline("RegUNet", 7_827_264, build_regunet, 8),
    "segnet": Baseline("SegNet", 29_443_585, build_segnet, 32, encoder_weights="vgg16_bn"),
    "deeplabv3plus": Baseline("DeepLabV3+", 45_669_713, build_deeplabv3plus, 16, encoder_weights="resnet101"),
    "segformer": Baseline("Segformer", 43_829_313, build_segformer, 32, encoder_weights="resnet101"),
    "unetplusplus": Baseline("U-Net++", 67_977_873, build_unetplusplus, 32, encoder_weights="resnet101"),
    "segresnet": Baseline("SegResNet", 6_299_073, build_segresnet, 8),
    "dynunet": Baseline("DynUNet", 20_611_713, build_dynunet, 32),
    "detail_head": Baseline("detail head alone", 104_580, build_detail_head, 4),
}


def build(name: str, out_channels: int, img_size: int, size: NetworkSize = "paper") -> PaddedNetwork:
    """A baseline with random weights, in training mode: images (B, 3, S, S) -> logits (B, out_channels, S, S).

    Works under `torch.device("meta")`, to count parameters.

    Args:
        name: a key of `BASELINES`.
        out_channels: channels of the logits, one a label.
        img_size: S in pixels. UNETR takes no other size, the rest take any.
        size: "paper", or "nano" for tests and small CPU runs (some hundred thousand parameters).

    Raises:
        UserError: a library that is not installed.
    """
    baseline = BASELINES[name]
    side = padded_side(img_size, baseline.multiple)
    return PaddedNetwork(
        baseline.builder(out_channels, side, size),
        baseline.multiple,
        fixed_size=side if baseline.fixed_size else None,
        encoder_weights=baseline.encoder_weights if size == "paper" else None,
    )
