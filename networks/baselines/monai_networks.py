"""U-Net, UNETR, RegUNet, SegResNet and DynUNet, from MONAI."""

from typing import Any

from torch import nn

from networks.baselines.base import IMAGE_CHANNELS
from utils.config.options import NetworkSize
from utils.extras import REQUIREMENTS_FILE, extra

_UNET: dict[NetworkSize, dict[str, Any]] = {
    "paper": {"channels": (32, 64, 128, 256, 512)},
    "nano": {"channels": (8, 16, 32, 64, 64)},
}
_UNETR: dict[NetworkSize, dict[str, Any]] = {
    "paper": {"feature_size": 32},
    "nano": {"feature_size": 8, "hidden_size": 48, "mlp_dim": 96, "num_heads": 4},
}
_REGUNET: dict[NetworkSize, dict[str, Any]] = {"paper": {"num_channel_initial": 64}, "nano": {"num_channel_initial": 8}}
_SEGRESNET: dict[NetworkSize, dict[str, Any]] = {"paper": {"init_filters": 32}, "nano": {"init_filters": 8}}
_DYNUNET: dict[NetworkSize, tuple[int, ...]] = {"paper": (32, 64, 128, 256, 512, 512), "nano": (16, 32, 64, 64)}


def build_unet(out_channels: int, img_size: int, size: NetworkSize) -> nn.Module:
    """U-Net (arXiv 1505.04597) with residual units (Kerfoot et al. 2018), strided convolutions and instance norms."""
    return _networks().UNet(
        spatial_dims=2,
        in_channels=IMAGE_CHANNELS,
        out_channels=out_channels,
        strides=(2, 2, 2, 2),
        num_res_units=2,
        **_UNET[size],
    )


def build_unetr(out_channels: int, img_size: int, size: NetworkSize) -> nn.Module:
    """UNETR (arXiv 2103.10504): ViT-B/16 and a convolutional decoder, for images of exactly `img_size`.

    MONAI gives each block a cross-attention that this network never calls. Some versions fill it with weights (29 M in
    all), newer ones with an Identity, as here. Its norm remains and gets no gradient.
    """
    extra("einops", "arch unetr", REQUIREMENTS_FILE)  # MONAI's own message has many lines
    network = _networks().UNETR(
        in_channels=IMAGE_CHANNELS, out_channels=out_channels, img_size=img_size, spatial_dims=2, **_UNETR[size]
    )
    for block in network.vit.blocks:
        block.cross_attn = nn.Identity()
    return network


def build_regunet(out_channels: int, img_size: int, size: NetworkSize) -> nn.Module:
    """RegUNet, DeepReg's registration network (Fu et al., JOSS 2020), as a segmentation network.

    With the default `extract_levels=(depth,)`, which the paper's parameter count indicates, MONAI builds no decoder:
    it computes the logits at an eighth of the image's side and repeats them 8 x 8. With a decoder: 11.7 M parameters.
    """
    return _networks().RegUNet(
        spatial_dims=2, in_channels=IMAGE_CHANNELS, out_channels=out_channels, depth=3, **_REGUNET[size]
    )


def build_segresnet(out_channels: int, img_size: int, size: NetworkSize) -> nn.Module:
    """SegResNet (arXiv 1810.11654) without its autoencoder branch, 32 filters and dropout 0.2 as there."""
    return _networks().SegResNet(
        spatial_dims=2,
        in_channels=IMAGE_CHANNELS,
        out_channels=out_channels,
        dropout_prob=0.2,
        blocks_down=(1, 2, 2, 4),
        blocks_up=(1, 1, 1),
        **_SEGRESNET[size],
    )


def build_dynunet(out_channels: int, img_size: int, size: NetworkSize) -> nn.Module:
    """nnU-Net's plain U-Net (arXiv 1809.10486) without deep supervision: its first level has the image's resolution."""
    filters = _DYNUNET[size]
    deeper = len(filters) - 1
    return _networks().DynUNet(
        spatial_dims=2,
        in_channels=IMAGE_CHANNELS,
        out_channels=out_channels,
        kernel_size=[3] * len(filters),
        strides=[1] + [2] * deeper,
        upsample_kernel_size=[2] * deeper,
        filters=filters,
    )


def _networks() -> Any:
    return extra("monai.networks.nets", "this arch", REQUIREMENTS_FILE)  # takes seconds
