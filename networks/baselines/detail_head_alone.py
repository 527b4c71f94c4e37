"""The detail head without SAM: what of its masks comes from the image alone."""

import torch
from torch import Tensor, nn

from networks.detail_head import DetailHead
from utils.config.options import NetworkSize

_DECODER_CHANNELS = 32  # of SAM's and SAM2's upscaled features


class DetailHeadAlone(nn.Module):
    """The detail head where the mask decoder's features and logits are 0; one head for each channel."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(DetailHead(_DECODER_CHANNELS) for _ in range(out_channels))

    def forward(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W), H and W multiples of 4 -> logits (B, out_channels, H, W)."""
        batch, _, height, width = images.shape
        features = images.new_zeros(batch, _DECODER_CHANNELS, height // 4, width // 4)
        masks = []
        for head in self.heads:
            assert isinstance(head, DetailHead)
            masks.append(head(head.embed(images), features, features[:, 0]))
        return torch.stack(masks, dim=1)


def build_detail_head(out_channels: int, img_size: int, size: NetworkSize) -> nn.Module:
    """The control of the detail head: as large as it is beside ViT-B and B+, at both sizes."""
    return DetailHeadAlone(out_channels)
