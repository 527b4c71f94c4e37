"""What all baselines share: padding to the image sizes that a network takes."""

from torch import Tensor, nn

IMAGE_CHANNELS = 3


class PaddedNetwork(nn.Module):
    """A network for images of any size: pads them with 0 at the right and bottom, and crops the logits.

    Each side is padded to the next multiple of `multiple`, and to at least two multiples: at the deepest level, the
    normalization of a single image needs more than one position. The data transforms pad with 0 too.

    Attributes:
        network: images (B, 3, H, W) -> logits (B, out_channels, H, W), H and W multiples of `multiple`.
        multiple: of the pixels a side.
        fixed_size: the padded side that `network` was built for, or None where it takes any.
        encoder_weights: the torchvision model whose weights fit `network.encoder`, or None.
    """

    def __init__(
        self, network: nn.Module, multiple: int, fixed_size: int | None = None, encoder_weights: str | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.multiple = multiple
        self.fixed_size = fixed_size
        self.encoder_weights = encoder_weights

    def forward(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W) float -> logits (B, out_channels, H, W) float.

        Raises:
            ValueError: another image size than the one that a network of fixed size was built for.
        """
        height, width = images.shape[-2:]
        padded_height, padded_width = (padded_side(side, self.multiple) for side in (height, width))
        if self.fixed_size is not None and (padded_height, padded_width) != (self.fixed_size, self.fixed_size):
            raise ValueError(
                f"the network was built for images that pad to {self.fixed_size} x {self.fixed_size} pixels; "
                f"{height} x {width} do not"
            )
        padding = (0, padded_width - width, 0, padded_height - height)  # left, right, top, bottom
        logits = self.network(nn.functional.pad(images, padding))
        return logits[..., :height, :width]  # (B, out_channels, H, W)

    def extra_repr(self) -> str:
        return f"multiple={self.multiple}, fixed_size={self.fixed_size}"


def padded_side(side: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is at least `side` and at least twice `multiple`."""
    return max(2, -(-side // multiple)) * multiple
