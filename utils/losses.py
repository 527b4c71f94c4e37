"""The segmentation loss: any sum of focal, Dice and binary cross-entropy, on logits."""

import torch
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from utils.config.schema import LOSS_PARTS
from utils.errors import ConfigError

FOCAL_INPUTS = ("logits", "probabilities")

# One pixel of mass: an empty mask scored against an empty prediction gives 0 and the quotient never divides by 0.
DICE_SMOOTH = 1.0


class SegmentationLoss(nn.Module):
    """Sum of the parts named in `loss`, each with weight 1.

    - `focal`: (1 - p_t)^gamma * alpha_t * BCE, mean over all pixels (Lin et al., arXiv 1708.02002, eq. 5).
    - `dice`: 1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1) per image, then the mean over images.
    - `bce`: binary cross-entropy, mean over all pixels.

    Args:
        loss: parts joined by "+", out of `LOSS_PARTS`; each at most once.
        focal_alpha: weight of the foreground in [0, 1]; the background has 1 - focal_alpha.
        focal_gamma: exponent of the modulating factor, 0 or at least 1.
        focal_on: "logits", or "probabilities" for what the released code of SALT does: the sigmoid's output is taken
            for a logit, so the focal part sees sigmoid(sigmoid(logits)), which stays within [0.5, 0.731].

    Raises:
        ConfigError: an unknown or repeated part, or a setting out of its range.
    """

    def __init__(
        self,
        loss: str = "focal+dice",
        focal_alpha: float = 0.75,
        focal_gamma: float = 3.0,
        focal_on: str = "logits",
    ) -> None:
        super().__init__()
        self.names = _part_names(loss)
        if focal_on not in FOCAL_INPUTS:
            raise ConfigError(f"focal_on: {focal_on!r} is not known, choose one of {', '.join(FOCAL_INPUTS)}")
        if not 0.0 <= focal_alpha <= 1.0:
            raise ConfigError(f"focal_alpha: {focal_alpha} is outside [0, 1]")
        # Between 0 and 1 the factor's slope is infinite at p_t = 1: a saturated pixel would give a NaN gradient.
        if not (focal_gamma == 0.0 or focal_gamma >= 1.0):
            raise ConfigError(f"focal_gamma: {focal_gamma} must be 0 or at least 1")
        self.focal_alpha = focal_alpha
        self.focal_gamma = focal_gamma
        self.focal_on = focal_on

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """The summed loss, a float32 scalar; arguments as in `parts`."""
        return self.parts(logits, masks)["total"]

    def parts(self, logits: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """Every part by its name, and their sum as "total": float32 scalars, all with gradients.

        Args:
            logits: (B, S, S), any real values; computed in float32 whatever the dtype and even under autocast.
            masks: (B, S, S) with values 0 and 1, of any dtype.

        Raises:
            ValueError: the two shapes differ or are not (B, H, W).
        """
        if logits.ndim != 3 or logits.shape != masks.shape:
            raise ValueError(f"expected logits and masks (B, H, W), got {tuple(logits.shape)} and {tuple(masks.shape)}")
        with torch.autocast(logits.device.type, enabled=False):
            logits, masks = logits.float(), masks.float()
            values = {name: getattr(self, name)(logits, masks) for name in self.names}
            return {**values, "total": torch.stack(list(values.values())).sum()}

    def focal(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Focal part of float32 (B, S, S) tensors, a scalar."""
        inputs = torch.sigmoid(logits) if self.focal_on == "probabilities" else logits
        return sigmoid_focal_loss(inputs, masks, alpha=self.focal_alpha, gamma=self.focal_gamma, reduction="mean")

    def dice(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Dice part of float32 (B, S, S) tensors, a scalar in [0, 1]."""
        p = torch.sigmoid(logits)
        overlap, area = (p * masks).sum((1, 2)), p.sum((1, 2)) + masks.sum((1, 2))  # (B,)
        return (1.0 - (2.0 * overlap + DICE_SMOOTH) / (area + DICE_SMOOTH)).mean()

    def bce(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Binary cross-entropy part of float32 (B, S, S) tensors, a scalar."""
        return nn.functional.binary_cross_entropy_with_logits(logits, masks)


def _part_names(loss: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in loss.split("+"))
    for name in names:
        if name not in LOSS_PARTS:
            raise ConfigError(f"loss: {name!r} in {loss!r} is not known, join any of {', '.join(LOSS_PARTS)} by '+'")
    if len(set(names)) != len(names):
        raise ConfigError(f"loss: {loss!r} names a part twice")
    return names
