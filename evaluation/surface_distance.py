"""The percentile Hausdorff distance of two masks: MONAI's to the bit, in a fraction of its time.

The 95th percentile over n edge pixels needs the smallest 95% of their distances alone, and those of a usable
prediction are short. Of an exact distance transform (columns first, then rows: Felzenszwalb and Huttenlocher, Theory of
Computing 2012) only the first half is done for all pixels. The second half looks, for all edge pixels in work at once,
at one more column to the left and to the right, and stops when the percentile is certain.
"""

import numpy as np
import torch

# Costs in nanoseconds, roughly; they choose between ways of equal results.
_STEP_COST, _STEP_COST_OF_PIXEL, _TABLE_COST_OF_ENTRY, _TRANSFORM_COST_OF_PIXEL = 6_000, 4, 3, 56
_CHUNK = 1 << 17  # entries of one block of the table
_QUANTILE_LIMIT = 1 << 24  # torch.quantile takes no more values


def mask_edges(mask: np.ndarray) -> np.ndarray:
    """The foreground pixels of a bool mask (H, W) with a 4-neighbour in the background or outside the image."""
    edges = mask.copy()
    core = mask[1:-1, 1:-1]
    edges[1:-1, 1:-1] = core & ~(mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:])
    return edges


def hausdorff_percentile(pred: np.ndarray, truth: np.ndarray, share: float = 0.95) -> float:
    """The percentile Hausdorff distance in pixels of two bool masks (H, W), neither of them empty.

    The distances run from each edge pixel of one mask to the nearest edge pixel of the other. Each direction's
    percentile is taken on its own (in float32, linear between values), and the larger returned, as MONAI's
    `compute_hausdorff_distance` does.

    Args:
        share: the percentile as a share in (0, 1].
    """
    box = _box(pred | truth)
    edges = mask_edges(pred[box]), mask_edges(truth[box])
    return max(_directed_percentile(*edges, share), _directed_percentile(*edges[::-1], share))


def _box(mask: np.ndarray) -> tuple[slice, slice]:
    """The bounding box of the foreground: what lies around it is background, as the outside of an image is."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _directed_percentile(source: np.ndarray, target: np.ndarray, share: float) -> float:
    """The percentile of the distances from the pixels of `source` to `target`, bool (H, W) each."""
    count = np.count_nonzero(source)
    # The two values around the rank, and two more: torch may round the rank to float32.
    nearest = _nearest_squared(source, target, min(count, int(share * (count - 1)) + 4))
    distances = np.full(count, np.inf, np.float32)
    # Integers are sorted faster than torch sorts floats, which is faster again when nothing is left to do.
    distances[: len(nearest)] = np.sqrt(np.sort(nearest).astype(np.float64))
    if count > _QUANTILE_LIMIT:
        return float(np.quantile(distances, share))
    return float(torch.quantile(torch.from_numpy(distances), share))


def _nearest_squared(source: np.ndarray, target: np.ndarray, needed: int) -> np.ndarray:
    """Squared distances from the pixels of `source` to `target`, in any order.

    The `needed` smallest are right; all others are given, or left out, as no smaller than those.
    """
    width = source.shape[1]
    looks = _squared_in_column(target)
    columns = np.flatnonzero(target.any(axis=0))
    pixels = np.flatnonzero(source)
    place = pixels + pixels // width * width  # (k,) of the pixels in work, in rows of twice the width
    best = looks[width:].take(place)  # (k,) over all columns at most `step` away
    done: list[np.ndarray] = []
    step, spent = 0, 0
    while True:
        # What is more than `step` columns away is at least this far.
        certain = best <= (step + 1) ** 2
        count = np.count_nonzero(certain)
        if count >= needed or step == width - 1:
            return np.concatenate([*done, best])
        if count > len(best) // 6:
            done.append(best.compress(certain))
            needed -= count
            others = np.flatnonzero(~certain)  # faster than the mask itself
            place, best = place.take(others), best.take(others)
        # Another way is taken once it costs no more than was spent, so that twice the cheapest way's cost is the most.
        if _TABLE_COST_OF_ENTRY * len(place) * len(columns) <= spent:
            return np.concatenate([*done, _all_columns(looks, columns, place, width)])
        if _TRANSFORM_COST_OF_PIXEL * source.size <= spent:
            y, x = np.divmod(place, 2 * width)
            return np.concatenate([*done, _transform(target)[y, x]])
        step += 1
        spent += _STEP_COST + _STEP_COST_OF_PIXEL * len(place)
        beside = looks[width - step :].take(place)
        np.minimum(beside, looks[width + step :].take(place), out=beside)
        beside += step * step
        np.minimum(best, beside, out=best)


def _squared_in_column(target: np.ndarray) -> np.ndarray:
    """The squared distance of each pixel to the nearest pixel of `target` in its own column.

    Pixels of a column without any are farther than all others can be, and so are W entries before each row and after
    the last, for who looks beyond the border: entry W + 2 W y + x is of pixel (y, x).

    Returns: (W + 2 W H,) int32, int64 for images whose squares need it.
    """
    height, width = target.shape
    far = height + width
    small = far < 1 << 14
    distance = (~target).astype(np.int16 if small else np.int64)
    distance *= far
    moved = np.empty_like(distance)
    step = 1
    # After each round a pixel knows of what is up to 1, 3, 7, ... rows away.
    while step < height:
        for here, there in ((slice(step, None), slice(-step)), (slice(-step), slice(step, None))):
            np.add(distance, distance.dtype.type(step), out=moved)
            np.minimum(distance[here], moved[there], out=distance[here])
        step *= 2
    looks = np.full(width + 2 * width * height, far * far, np.int32 if small else np.int64)
    rows = looks[width:].reshape(height, 2 * width)[:, :width]
    np.square(distance, out=rows, dtype=looks.dtype)
    return looks


def _all_columns(looks: np.ndarray, columns: np.ndarray, place: np.ndarray, width: int) -> np.ndarray:
    """Squared distances of the pixels (k,), by a look at all the columns (c,) that hold anything."""
    vertical = looks[width:].reshape(-1, 2 * width)[:, columns]  # (H, c)
    result = np.empty(len(place), looks.dtype)
    y, x = np.divmod(place, 2 * width)
    x, columns = x.astype(looks.dtype), columns.astype(looks.dtype)
    rows = max(1, _CHUNK // len(columns))
    for start in range(0, len(place), rows):
        across = np.subtract.outer(x[start : start + rows], columns)  # (rows, c)
        across *= across
        across += vertical[y[start : start + rows]]
        result[start : start + rows] = across.min(axis=1)
    return result


def _transform(target: np.ndarray) -> np.ndarray:
    """Squared distances of all pixels (H, W), by scipy's transform, whose time depends on the size alone."""
    from scipy.ndimage import distance_transform_edt  # a slow import for a rare need

    return np.rint(np.square(distance_transform_edt(~target))).astype(np.int64)
