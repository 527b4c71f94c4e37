"""The detail head: adds the image's finest structures to SAM's mask logits, at the resolution of the model's input."""

import torch
from torch import Tensor, nn

_FINE = 16  # channels at half of the image's side
_COARSE = 32  # channels at a quarter


class DetailHead(nn.Module):
    """Corrects a mask's logits at full resolution, from the image, the mask decoder's features and its logits.

    SAM's logits stand at a quarter of the image's side and are enlarged bilinearly, which loses vessels of one to three
    pixels. This head adds a correction that starts as exactly 0:

        image -> unshuffle by 2 -> convolutions -> E2 (16 channels, S / 2) -> stride 2 -> E4 (32 channels, S / 4)
        [E4, decoder features, logits] -> convolutions -> shuffle by 2 -> + E2 -> convolutions -> shuffle by 2 -> (S, S)

    All convolutions run at half of the image's side or below, where they cost a percent of ViT-B's encoder; the
    shuffles (Shi et al., 2016) keep every pixel. Ancestors: U-Net's skips (Ronneberger et al., 2015), HQ-SAM's fusion
    of early features with the mask decoder's (Ke et al., 2023), PointRend's refinement of a coarse mask (Kirillov et
    al., 2020). The image branch sees no prompt; the label reaches the head through the decoder's features and logits.
    """

    def __init__(self, decoder_channels: int) -> None:
        """Args: decoder_channels: C / 8 of the mask decoder's upscaled features."""
        super().__init__()
        self.fine = nn.Sequential(
            nn.PixelUnshuffle(2), _convolution(12, _FINE), _convolution(_FINE, _FINE)
        )  # (B, 3, S, S) -> (B, 16, S / 2, S / 2)
        self.coarse = nn.Sequential(_convolution(_FINE, _COARSE, stride=2), _convolution(_COARSE, _COARSE))
        self.fuse = nn.Sequential(
            _convolution(_COARSE + decoder_channels + 1, 2 * _COARSE),
            _convolution(2 * _COARSE, 2 * _COARSE),
            nn.Conv2d(2 * _COARSE, 4 * _FINE, 1),
            nn.PixelShuffle(2),
        )  # -> (B, 16, S / 2, S / 2)
        self.join = nn.Sequential(_convolution(2 * _FINE, _FINE), _convolution(_FINE, _FINE))
        self.correction = nn.Conv2d(_FINE, 4, 3, padding=1)
        for parameter in self.correction.parameters():
            nn.init.zeros_(parameter)

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The image branch, before any prompt: (B, 3, S, S) -> (B, 16, S / 2, S / 2), (B, 32, S / 4, S / 4)."""
        fine = self.fine(images)
        return fine, self.coarse(fine)

    def forward(self, embedded: tuple[Tensor, Tensor], features: Tensor, logits: Tensor) -> Tensor:
        """The correction of the enlarged logits.

        Args:
            embedded: as `embed` returns it.
            features: (B, C / 8, h, w), the mask decoder's; h and w are S / 4 or a multiple.
            logits: (B, h, w), the mask decoder's.

        Returns:
            (B, S, S) float, all 0 before training.
        """
        fine, coarse = embedded
        decoded = torch.cat([features, logits[:, None]], dim=1)
        decoded = nn.functional.interpolate(decoded, coarse.shape[-2:], mode="bilinear")  # nano SAM's stand at S / 2
        fused = self.fuse(torch.cat([coarse, decoded], dim=1))
        correction = self.correction(self.join(torch.cat([fine, fused], dim=1)))  # (B, 4, S / 2, S / 2)
        return nn.functional.pixel_shuffle(correction, 2)[:, 0]


def _convolution(channels: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 3, stride, 1), nn.GroupNorm(4, out), nn.GELU())
