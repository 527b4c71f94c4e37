"""The columns of per_image.csv that hold scores."""

from typing import get_args

from evaluation.metrics import PairScore
from utils.config.options import MetricName, Region, Size

IMAGE_COLUMNS = ("dice", "hd95", "dice_native", "hd95_native")  # those of every file


def image_column(metric: str, size: Size = "img_size", region: Region = "whole") -> str:
    """The column of a score, such as "dice", "cldice_native" or "dice_native_fov"."""
    return metric + ("_native" if size == "native" else "") + ("_fov" if region == "fov" else "")


ALL_COLUMNS = frozenset(
    image_column(metric, size, region)
    for metric in get_args(MetricName)
    for size in get_args(Size)
    for region in get_args(Region)
)


def score_columns(img_size: PairScore, native: PairScore) -> dict[str, float | None]:
    """The scores of one image at both sizes, whole and inside the field of view where there is one, by column."""
    sizes: tuple[tuple[Size, PairScore], ...] = (("img_size", img_size), ("native", native))
    regions: list[tuple[Size, Region, PairScore]] = [(size, "whole", pair) for size, pair in sizes]
    regions += [(size, "fov", pair.fov) for size, pair in sizes if pair.fov]
    return {
        image_column(metric, size, region): value
        for size, region, pair in regions
        for metric, value in {"dice": pair.dice, "hd95": pair.hd95, **pair.others}.items()
    }
