"""DeepLabV3+, Segformer and U-Net++ from segmentation_models_pytorch, all three with a ResNet-101 encoder."""

from typing import Any

from torch import nn

from networks.baselines.base import IMAGE_CHANNELS
from networks.batch_norm import SingleValueBatchNorm
from utils.config.options import NetworkSize
from utils.extras import REQUIREMENTS_FILE, extra

# Options of all three. "tu-": timm's ResNet, whose depth and widths are arguments.
_ENCODER: dict[NetworkSize, dict[str, Any]] = {
    "paper": {"encoder_name": "resnet101"},
    "nano": {
        "encoder_name": "tu-resnet18",
        "stem_type": "deep",
        "stem_width": 8,
        "channels": (16, 32, 48, 64),
        "layers": (1, 1, 1, 1),
    },
}
_DEEPLABV3PLUS: dict[NetworkSize, dict[str, Any]] = {"paper": {}, "nano": {"decoder_channels": 32}}
_SEGFORMER: dict[NetworkSize, dict[str, Any]] = {"paper": {}, "nano": {"decoder_segmentation_channels": 32}}
_UNETPLUSPLUS: dict[NetworkSize, dict[str, Any]] = {"paper": {}, "nano": {"decoder_channels": (32, 16, 16, 8, 8)}}


def build_deeplabv3plus(out_channels: int, img_size: int, size: NetworkSize) -> nn.Module:
    """DeepLabV3+ (arXiv 1802.02611), output stride 16; its global pooling takes a batch of one in training."""
    network = _build("DeepLabV3Plus", out_channels, size, _DEEPLABV3PLUS)
    from segmentation_models_pytorch.decoders.deeplabv3.decoder import ASPPPooling

    for pooling in [module for module in network.modules() if isinstance(module, ASPPPooling)]:
        for name, norm in [pair for pair in pooling.named_children() if isinstance(pair[1], nn.BatchNorm2d)]:
            setattr(pooling, name, SingleValueBatchNorm(norm.num_features, norm.eps, norm.momentum))
    return network


def build_segformer(out_channels: int, img_size: int, size: NetworkSize) -> nn.Module:
    """Segformer's all-MLP decoder (arXiv 2105.15203) on a ResNet, as the paper's count shows: no Mix Transformer."""
    return _build("Segformer", out_channels, size, _SEGFORMER)


def build_unetplusplus(out_channels: int, img_size: int, size: NetworkSize) -> nn.Module:
    """U-Net++ (arXiv 1807.10165).

    It differs from DeepLabV3+ and Segformer only in its decoder and takes the same ImageNet weights. MONAI's has a
    plain encoder and a list of outputs.
    """
    return _build("UnetPlusPlus", out_channels, size, _UNETPLUSPLUS)


def _build(
    class_name: str, out_channels: int, size: NetworkSize, options: dict[NetworkSize, dict[str, Any]]
) -> nn.Module:
    library = extra("segmentation_models_pytorch", "this arch", REQUIREMENTS_FILE)  # takes seconds
    return getattr(library, class_name)(
        encoder_weights=None, in_channels=IMAGE_CHANNELS, classes=out_channels, **_ENCODER[size], **options[size]
    )
