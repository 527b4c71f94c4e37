"""The columns of per_image.csv that hold scores."""

from typing import get_args

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
