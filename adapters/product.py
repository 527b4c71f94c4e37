"""The singular values of a product X Y of two thin factors, and how some of them are shrunk or dropped."""

from dataclasses import dataclass

import torch
from torch import Tensor

# What remains, relative to the largest singular value, of one that `shrink_product` has set to 0: rounding.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class ProductSVD:
    """X Y = L diag(values) R^T: L (n, k) and R (m, k) with orthonormal columns, values (k,) descending."""

    L: Tensor
    values: Tensor
    R: Tensor

    @property
    def rank(self) -> int:
        """The number of singular values that are more than rounding."""
        if not self.values.numel():
            return 0
        return int((self.values > _ROUNDING * self.values[0]).sum())


def product_svd(X: Tensor, Y: Tensor) -> ProductSVD:
    """The SVD of X Y for X (n, d) and Y (d, m), by two QR decompositions and an SVD of size k = min(n, d, m).

    X Y itself, which is (n, m), is not formed.
    """
    Qx, Rx = torch.linalg.qr(X)
    Qy, Ry = torch.linalg.qr(Y.mT)
    P, values, Qh = torch.linalg.svd(Rx @ Ry.mT, full_matrices=False)
    return ProductSVD(Qx @ P, values, Qy @ Qh.mT)


def shrink_product(X: Tensor, Y: Tensor, step: float) -> None:
    """Lowers every singular value of X Y to 0 at the least, in place. Changes Y alone.

    The j-th is lowered by step * (sqrt(d) + sqrt(m)) * ||X^T L_j||: about what a random step of Y (d, m), of the size
    `step` in each element, adds to the largest one. For equal thresholds this is singular value thresholding, the
    proximal map of the nuclear norm (Cai et al., SIAM J. Optim. 2010).

    X keeps all its columns, so that a direction at 0 goes on receiving gradients through Y, as it does at SALT's start.
    If both factors lost the direction, its gradients would be 0 for ever.
    """
    if not Y.numel() or not Y.any():
        return
    svd = product_svd(X, Y)
    d, m = Y.shape
    thresholds = step * (d**0.5 + m**0.5) * torch.linalg.vector_norm(X.mT @ svd.L, dim=0)
    lost = (thresholds / svd.values).nan_to_num(1.0).clamp(max=1)
    if (lost == 1).all():
        Y.zero_()
    else:
        Y.sub_(((Y @ svd.R) * lost) @ svd.R.mT)
