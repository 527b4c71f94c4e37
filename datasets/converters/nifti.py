"""NIfTI volumes by nibabel, an extra."""

from pathlib import Path

import numpy as np

from utils.errors import UserError, first_line
from utils.extras import extra

NIFTI_SUFFIXES = (".nii.gz", ".nii")


def read_volume(path: Path) -> np.ndarray:
    """Return a NIfTI file as slices of its third axis, (D, H, W), with the second axis downwards.

    Raises: UserError that names the file, if it is unreadable or not of three axes, or if nibabel is not installed.
    """
    nibabel = extra("nibabel", f"{path.name}, a NIfTI file,")
    try:
        volume = np.asanyarray(nibabel.load(path).dataobj)
    except Exception as error:  # nibabel and gzip raise errors of many kinds
        raise UserError(f"{path}: not a readable NIfTI file ({first_line(error)})") from error
    if volume.ndim > 3:
        volume = volume.reshape(volume.shape[:3]) if volume.size == np.prod(volume.shape[:3]) else volume
    if volume.ndim == 2:
        volume = volume[..., None]
    if volume.ndim != 3:
        raise UserError(f"{path}: has {volume.ndim} axes, {volume.shape}; expected one volume")
    if volume.dtype.kind == "f" and (volume == np.rint(volume)).all():  # labels are often stored as floats
        volume = volume.astype(np.int64)
    return np.ascontiguousarray(volume.transpose(2, 1, 0))
