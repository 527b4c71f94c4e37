"""Names of the files that are written for an image and a label."""

import os
from collections.abc import Sequence
from pathlib import PurePosixPath

_LONGEST = 255  # bytes of a file name, on all common file systems


def output_name(image: str, label: str) -> str:
    """The output's path for an image of the given path below images/: in the same subfolders, `<stem>_<label>.png`."""
    path = PurePosixPath(image)
    folders = [part for part in path.parent.parts if part not in ("/", "..")]  # never outside the folder of outputs
    return PurePosixPath(*folders, f"{path.stem}_{label.replace('/', '_')}.png").as_posix()


def name_problem(image: str, labels: Sequence[str]) -> str:
    """Why no file can be written for an image and some label; "" if each can."""
    if "\0" in image or any("\ud800" <= letter <= "\udfff" for letter in image):
        return f"{image[:200]!r} is no file name; rename it"
    for name in (image, *(output_name(image, label) for label in labels)):
        for part in PurePosixPath(name).parts:
            if (length := len(os.fsencode(part))) > _LONGEST:
                what = "is" if name == image else "makes a file name"
                return f"{image[:60]}... {what} {length} bytes long, and file systems take {_LONGEST}; shorten it"
    return ""
