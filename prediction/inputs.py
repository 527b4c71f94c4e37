"""What users have as an image, as an array that the model's preprocessing takes."""

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from data_transforms.data_transforms import Data_Transform
from datasets.dicom import WHITE
from prediction.sources import Source, in_units_of

ImageInput = str | Path | np.ndarray | Tensor | Image.Image

_PILLOW_MODES = ("L", "RGB", "RGBA", "F")  # whose arrays are what they show
_CHANNELS = (1, 3, 4)


def as_array(image: ImageInput, transform: Data_Transform) -> np.ndarray:
    """An image (H, W), (H, W, 3) or (H, W, 4): uint8, uint16, or float32 in the checkpoint's a_min..a_max.

    Args:
        image: a file, of which the first frame is taken; a Pillow image; or an array (H, W) or (H, W, C) or a tensor
            (H, W) or (C, H, W) of uint8, uint16, or floats. Floats between 0 and 1 go from black to white, others are
            in units of a_min..a_max.
        transform: the checkpoint's.

    Raises:
        UserError: a file that cannot be read.
        ValueError: an array or tensor of another shape or type; a Pillow image of integers outside 0..65535; floats
            outside 0..1 for a checkpoint without a_max.
    """
    if isinstance(image, str | Path):
        return next(Source(Path(image), Path(image)).images(transform))
    if isinstance(image, Image.Image):
        image = _from_pillow(image)
    if isinstance(image, Tensor):
        image = _channels_last(image).detach().cpu().numpy()
    return _from_floats(image, transform) if np.issubdtype(image.dtype, np.floating) else image


def _from_pillow(image: Image.Image) -> np.ndarray:
    if not image.mode.startswith("I"):
        return np.asarray(image if image.mode in _PILLOW_MODES else image.convert("RGB"))
    values = np.asarray(image)  # "I" is what Pillow makes of a PGM of more than 8 bits
    if values.size and (values.min() < 0 or values.max() > WHITE):
        raise ValueError(f"expected a Pillow image of 0..{WHITE}, got {values.min()} to {values.max()}")
    return values.astype(np.uint16)


def _channels_last(image: Tensor) -> Tensor:
    if image.ndim == 2:
        return image
    if image.ndim != 3 or image.shape[0] not in _CHANNELS:
        raise ValueError(f"expected a tensor (H, W) or (C, H, W) with 1, 3 or 4 channels, got {tuple(image.shape)}")
    return image.permute(1, 2, 0)


def _from_floats(image: np.ndarray, transform: Data_Transform) -> np.ndarray:
    if image.size == 0:
        return image
    if not np.isfinite(image).all():
        raise ValueError("expected an image of finite numbers, got NaN or infinite ones")
    is_share = image.min() >= 0 and image.max() <= 1
    if transform.a_max is None and not is_share:
        raise ValueError(
            f"expected floats between 0 and 1, got {image.min():g} to {image.max():g}: the checkpoint has no a_max "
            "that says what is white"
        )
    if is_share and (transform.a_max is None or transform.a_max > 1):
        return in_units_of(transform, np.rint(image * WHITE).astype(np.uint16))
    return image.astype(np.float32)
