"""DeepLabV3+, Segformer and U-Net++ from segmentation_models_pytorch, all three with a ResNet-101 encoder."""

from typing import Any

from torch import Tensor, nn

from networks.baselines.base import IMAGE_CHANNELS, Size, import_library

_PACKAGE = "segmentation_models_pytorch"
# What the three have in common. "tu-": timm's ResNet, whose depth and widths are arguments.
_ENCODER: dict[Size, dict[str, Any]] = {
    "paper": {"encoder_name": "resnet101"},
    "nano": {
        "encoder_name": "tu-resnet18",
        "stem_type": "deep",
        "stem_width": 8,
        "channels": (16, 32, 48, 64),
        "layers": (1, 1, 1, 1),
    },
}
_DEEPLABV3PLUS: dict[Size, dict[str, Any]] = {"paper": {}, "nano": {"decoder_channels": 32}}
_SEGFORMER: dict[Size, dict[str, Any]] = {"paper": {}, "nano": {"decoder_segmentation_channels": 32}}
_UNETPLUSPLUS: dict[Size, dict[str, Any]] = {"paper": {}, "nano": {"decoder_channels": (32, 16, 16, 8, 8)}}


class SingleValueBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d that normalizes with its running statistics where a channel has a single value.

    That is a batch of one in training after global pooling, where the stock layer fails: one value has no variance.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return nn.functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(x)


def build_deeplabv3plus(out_channels: int, img_size: int, size: Size) -> nn.Module:
    """DeepLabV3+ (arXiv 1802.02611), output stride 16; its image pooling takes a batch of one in training."""
    network = _build("DeepLabV3Plus", out_channels, size, _DEEPLABV3PLUS)
    pooling_class = import_library(f"{_PACKAGE}.decoders.deeplabv3.decoder", _PACKAGE).ASPPPooling
    for pooling in [module for module in network.modules() if isinstance(module, pooling_class)]:
        for name, norm in [pair for pair in pooling.named_children() if isinstance(pair[1], nn.BatchNorm2d)]:
            setattr(pooling, name, SingleValueBatchNorm2d(norm.num_features, norm.eps, norm.momentum))
    return network


def build_segformer(out_channels: int, img_size: int, size: Size) -> nn.Module:
    """Segformer's all-MLP decoder (arXiv 2105.15203) on a ResNet, as the paper's count tells: no Mix Transformer."""
    return _build("Segformer", out_channels, size, _SEGFORMER)


def build_unetplusplus(out_channels: int, img_size: int, size: Size) -> nn.Module:
    """U-Net++ (arXiv 1807.10165).

    From this library and not from MONAI, so that it differs from DeepLabV3+ and Segformer in its decoder alone and
    takes the same ImageNet weights; MONAI's has a plain encoder, and a list of outputs.
    """
    return _build("UnetPlusPlus", out_channels, size, _UNETPLUSPLUS)


def _build(class_name: str, out_channels: int, size: Size, options: dict[Size, dict[str, Any]]) -> nn.Module:
    library = import_library(_PACKAGE, "segmentation-models-pytorch")
    return getattr(library, class_name)(
        encoder_weights=None, in_channels=IMAGE_CHANNELS, classes=out_channels, **_ENCODER[size], **options[size]
    )
