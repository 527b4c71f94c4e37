"""Metrics of a mask's shape: its surface, its centre line, and the pieces it consists of."""

import math
import warnings
from collections.abc import Collection

import numpy as np
import torch

SURFACE_METRICS = frozenset({"hd95", "assd", "nsd"})
TOPOLOGY_METRICS = frozenset({"cldice", "betti0_error", "thin_sensitivity"})
_EIGHT_NEIGHBOURS = np.ones((3, 3), bool)


def surface_metrics(
    pred: np.ndarray, truth: np.ndarray, names: Collection[str], tolerance: float = 2.0
) -> dict[str, float]:
    """Those of `SURFACE_METRICS` that `names` holds, of two bool masks (H, W), from distances as MONAI defines them.

    A distance runs from an edge pixel of one mask (a foreground pixel with a 4-neighbour in the background or outside
    the image) to the nearest edge pixel of the other; all of them in both directions make the metrics:

    - `hd95`, pixels: the larger of the two directions' 95th percentiles (linear interpolation).
    - `assd`, pixels: the mean of all distances.
    - `nsd`: the share of distances that are at most `tolerance` pixels (Nikolov et al., arXiv 1809.04430).

    Both masks empty: 0, 0, 1. Exactly one empty: the image diagonal sqrt(H^2 + W^2) twice, and 0.
    """
    if not SURFACE_METRICS & set(names):
        return {}
    values = _surfaces(pred, truth, tolerance)
    return {name: value for name, value in values.items() if name in names}


def _surfaces(pred: np.ndarray, truth: np.ndarray, tolerance: float) -> dict[str, float]:
    if not pred.any() and not truth.any():
        return {"hd95": 0.0, "assd": 0.0, "nsd": 1.0}
    if not pred.any() or not truth.any():
        diagonal = math.hypot(*pred.shape)
        return {"hd95": diagonal, "assd": diagonal, "nsd": 0.0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # from MONAI's own calls and imports
        from monai.metrics.utils import get_edge_surface_distance  # takes seconds to import

        # Copies: torch takes neither views with negative strides nor read-only arrays.
        y_pred, y = (torch.from_numpy(mask.copy()) for mask in (pred, truth))
        _, directions, _ = get_edge_surface_distance(y_pred, y, symmetric=True)
    distances = torch.cat(tuple(directions)).double()
    return {
        "hd95": max(torch.quantile(distance, 0.95).item() for distance in directions),
        "assd": distances.mean().item(),
        "nsd": (distances <= tolerance).double().mean().item(),
    }


def topology_metrics(pred: np.ndarray, truth: np.ndarray, names: Collection[str]) -> dict[str, float | None]:
    """Those of `TOPOLOGY_METRICS` that `names` holds, of two bool masks (H, W).

    - `cldice`: the harmonic mean of the shares of the prediction's centre line that lie in the truth, and of the
      truth's that lie in the prediction (Shit et al., arXiv 2003.07311, eq. 1 and 2), with scikit-image's skeletons.
      Both masks empty: 1. Exactly one empty: 0.
    - `betti0_error`: the difference between the numbers of 8-connected pieces, without sign; defined for all masks.
    - `thin_sensitivity`: the share of the truth's thin pixels that the prediction has. Thin are the pixels that an
      opening with a square of 3 x 3 removes, so those of lines of one or two pixels. None where there are none.
    """
    values: dict[str, float | None] = {}
    if "cldice" in names:
        values["cldice"] = _cldice(pred, truth)
    if "betti0_error" in names:
        values["betti0_error"] = float(abs(_pieces(pred) - _pieces(truth)))
    if "thin_sensitivity" in names:
        from scipy import ndimage

        thin = truth & ~ndimage.binary_opening(truth, _EIGHT_NEIGHBOURS)
        values["thin_sensitivity"] = float(pred[thin].mean()) if thin.any() else None
    return values


def _cldice(pred: np.ndarray, truth: np.ndarray) -> float:
    if not pred.any() or not truth.any():
        return float(pred.any() == truth.any())
    from skimage.morphology import skeletonize

    precision, sensitivity = (
        float(inside[skeletonize(mask)].mean()) for mask, inside in ((pred, truth), (truth, pred))
    )
    return 2 * precision * sensitivity / (precision + sensitivity) if precision + sensitivity else 0.0


def _pieces(mask: np.ndarray) -> int:
    from scipy import ndimage

    return int(ndimage.label(mask, _EIGHT_NEIGHBOURS)[1])
