"""The segmentation loss: any weighted sum of parts, on logits."""

from typing import Any, Self

import torch
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from utils.config.options import FocalInput, loss_parts

# One pixel: the loss of an empty prediction of an empty mask is 0, and no denominator is 0.
DICE_SMOOTH = 1.0
FOCAL_TVERSKY_POWER = 0.75  # 1 / gamma for the published gamma = 4 / 3
# The slope of the power is infinite at 0, where a perfect prediction would have a NaN gradient.
_SMALLEST_TVERSKY = 1e-6


class SegmentationLoss(nn.Module):
    """The sum of the parts that `loss` names, each with its weight.

    - `focal`: (1 - p_t)^gamma * alpha_t * BCE, mean over all pixels (Lin et al., arXiv 1708.02002, eq. 5).
    - `dice`: 1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1) per image, then the mean over images.
    - `bce`: binary cross-entropy, mean over all pixels.
    - `cldice`: soft clDice per image, then the mean (Shit et al., arXiv 2003.07311, algorithms 1 and 2).
    - `tversky`: 1 - (TP + 1) / (TP + alpha FP + (1 - alpha) FN + 1) per image, then the mean (Salehi et al., arXiv
      1706.05721, eq. 3).
    - `focal_tversky`: the mean over images of that to the power 3/4 (Abraham and Khan, arXiv 1810.07842, eq. 4).
    - `boundary`: log(1 + h), where h is the mean of (p - t)^2 (d_p^2 + d_t^2) over all pixels and d is the distance to
      the boundary of the prediction or of the truth, in pixels (Karimi and Salcudean, arXiv 1904.10030, eq. 8). A mask
      without boundary has d = 0.

    The last four are MONAI's.

    Args:
        loss: parts joined by "+", each at most once, with weights as in "focal+dice+cldice:0.5", by default 1.
        focal_alpha: weight of the foreground in [0, 1]; the background has 1 - focal_alpha.
        focal_gamma: exponent of the modulating factor, 0 or at least 1.
        focal_on: "logits", or "probabilities" as the released code of SALT has it: the focal part takes the sigmoid's
            output for a logit, so that its probabilities are sigmoid(sigmoid(logits)), in [0.5, 0.731].
        cldice_iterations: erosions of the soft skeleton; at least the largest vessel's radius in pixels.
        tversky_alpha: weight of false positives in [0, 1]; false negatives have 1 - tversky_alpha.

    Raises:
        ValueError: an unknown or repeated part, or a weight that is not above 0.
    """

    def __init__(
        self,
        loss: str = "focal+dice",
        focal_alpha: float = 0.75,
        focal_gamma: float = 3.0,
        focal_on: FocalInput = "logits",
        cldice_iterations: int = 10,
        tversky_alpha: float = 0.3,
    ) -> None:
        super().__init__()
        self.weights = loss_parts(loss)
        self.focal_alpha = focal_alpha
        self.focal_gamma = focal_gamma
        self.focal_on = focal_on
        if set(self.weights) - {"focal", "dice", "bce"}:
            from monai import losses  # takes seconds to import

            smooth: dict[str, Any] = {"smooth_nr": DICE_SMOOTH, "smooth_dr": DICE_SMOOTH, "sigmoid": True}
            self._cldice = losses.SoftclDiceLoss(cldice_iterations, **smooth)
            self._tversky = losses.TverskyLoss(
                alpha=tversky_alpha, beta=1.0 - tversky_alpha, reduction="none", **smooth
            )
            self._boundary = losses.LogHausdorffDTLoss(sigmoid=True, include_background=True)

    @classmethod
    def of(cls, training: Any) -> Self:
        """The loss of a config's `training` section."""
        return cls(
            training.loss,
            training.focal_alpha,
            training.focal_gamma,
            training.focal_on,
            training.cldice_iterations,
            training.tversky_alpha,
        )

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """The weighted sum of the parts, a float32 scalar; arguments as in `parts`."""
        return self.parts(logits, masks)["total"]

    def parts(self, logits: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """Every part by its name, without its weight, and the weighted sum as "total": float32 scalars with gradients.

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
            values: dict[str, Tensor] = {name: getattr(self, name)(logits, masks) for name in self.weights}
            weighted = [weight * values[name] for name, weight in self.weights.items()]
            return {**values, "total": torch.stack(weighted).sum()}

    def focal(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Focal part of float32 (B, S, S) tensors, a scalar."""
        inputs = torch.sigmoid(logits) if self.focal_on == "probabilities" else logits
        return sigmoid_focal_loss(inputs, masks, alpha=self.focal_alpha, gamma=self.focal_gamma, reduction="mean")

    def dice(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Dice part of float32 (B, S, S) tensors, a scalar in [0, 1].

        MONAI's adds in another order, so that values differ by rounding and a run would not repeat an earlier one.
        """
        p = torch.sigmoid(logits)
        overlap, area = (p * masks).sum((1, 2)), p.sum((1, 2)) + masks.sum((1, 2))  # (B,)
        return (1.0 - (2.0 * overlap + DICE_SMOOTH) / (area + DICE_SMOOTH)).mean()

    def bce(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Binary cross-entropy part of float32 (B, S, S) tensors, a scalar."""
        return nn.functional.binary_cross_entropy_with_logits(logits, masks)

    def cldice(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Soft clDice part of float32 (B, S, S) tensors, a scalar in [0, 1]."""
        return self._cldice(logits[:, None], masks[:, None])

    def tversky(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Tversky part of float32 (B, S, S) tensors, a scalar in [0, 1]."""
        return self._tversky(logits[:, None], masks[:, None]).mean()

    def focal_tversky(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Focal Tversky part of float32 (B, S, S) tensors, a scalar in [0, 1]."""
        tversky = self._tversky(logits[:, None], masks[:, None])  # (B, 1)
        return tversky.clamp_min(_SMALLEST_TVERSKY).pow(FOCAL_TVERSKY_POWER).mean()

    def boundary(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Boundary part of float32 (B, S, S) tensors, a scalar, at least 0."""
        return self._boundary(logits[:, None], masks[:, None])
