"""The segmentation loss: any sum of focal, Dice and binary cross-entropy, on logits."""

import torch
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from utils.config.options import FocalInput, loss_parts

# One pixel: the loss of an empty prediction of an empty mask is 0, and no denominator is 0.
DICE_SMOOTH = 1.0


class SegmentationLoss(nn.Module):
    """The sum of the parts that `loss` names, each with weight 1.

    - `focal`: (1 - p_t)^gamma * alpha_t * BCE, mean over all pixels (Lin et al., arXiv 1708.02002, eq. 5).
    - `dice`: 1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1) per image, then the mean over images.
    - `bce`: binary cross-entropy, mean over all pixels.

    Args:
        loss: names of parts joined by "+", each at most once.
        focal_alpha: weight of the foreground in [0, 1]; the background has 1 - focal_alpha.
        focal_gamma: exponent of the modulating factor, 0 or at least 1.
        focal_on: "logits", or "probabilities" as the released code of SALT has it: the focal part takes the sigmoid's
            output for a logit, so that its probabilities are sigmoid(sigmoid(logits)), in [0.5, 0.731].

    Raises:
        ValueError: an unknown or repeated part.
    """

    def __init__(
        self,
        loss: str = "focal+dice",
        focal_alpha: float = 0.75,
        focal_gamma: float = 3.0,
        focal_on: FocalInput = "logits",
    ) -> None:
        super().__init__()
        self.names = loss_parts(loss)
        self.focal_alpha = focal_alpha
        self.focal_gamma = focal_gamma
        self.focal_on = focal_on

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """The sum of the parts, a float32 scalar; arguments as in `parts`."""
        return self.parts(logits, masks)["total"]

    def parts(self, logits: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """Every part by its name, and their sum as "total": float32 scalars with gradients.

        Args:
            logits: (B, S, S) of any dtype; the loss is computed in float32, also under autocast.
            masks: (B, S, S) of any dtype, with values 0 and 1.

        Raises:
            ValueError: the two shapes differ or are not (B, H, W).
        """
        if logits.ndim != 3 or logits.shape != masks.shape:
            raise ValueError(f"expected logits and masks (B, H, W), got {tuple(logits.shape)} and {tuple(masks.shape)}")
        with torch.autocast(logits.device.type, enabled=False):
            logits, masks = logits.float(), masks.float()
            values: dict[str, Tensor] = {name: getattr(self, name)(logits, masks) for name in self.names}
            return {**values, "total": torch.stack(list(values.values())).sum()}

    def focal(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Focal part of float32 (B, S, S) tensors, a scalar."""
        inputs = torch.sigmoid(logits) if self.focal_on == "probabilities" else logits
        return sigmoid_focal_loss(inputs, masks, alpha=self.focal_alpha, gamma=self.focal_gamma, reduction="mean")

    def dice(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Dice part of float32 (B, S, S) tensors, a scalar in [0, 1]; as MONAI's, whose import takes 4 seconds."""
        p = torch.sigmoid(logits)
        overlap, area = (p * masks).sum((1, 2)), p.sum((1, 2)) + masks.sum((1, 2))  # (B,)
        return (1.0 - (2.0 * overlap + DICE_SMOOTH) / (area + DICE_SMOOTH)).mean()

    def bce(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Binary cross-entropy part of float32 (B, S, S) tensors, a scalar."""
        return nn.functional.binary_cross_entropy_with_logits(logits, masks)
