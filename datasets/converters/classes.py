"""The labels of a user's masks by name: `vessel=#ff0000` by colour, or `vessel=1` by stored value."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.io import read_image, read_mask
from utils.errors import ConfigError, UserError

_FORM = "write --classes as name=#ff0000 for masks in colour, or name=1 for stored values"
_SHOWN = 4
_MAX_COLOURS = 16  # a file with more is taken for a photograph


@dataclass(frozen=True)
class Classes:
    """The labels of `--classes`, in its order; the first is 1 in the masks written, background is 0.

    Attributes:
        names: of the foreground labels.
        stored: {colour as 0xRRGGBB, or value: label}, background included.
        in_colour: whether masks are read as colours.
    """

    names: Sequence[str]
    stored: Mapping[int, int]
    in_colour: bool

    @property
    def labels(self) -> dict[int, str]:
        """The name of each foreground label."""
        return dict(enumerate(self.names, start=1))

    def read(self, path: Path) -> np.ndarray:
        """Return a mask file's labels, (H, W) uint8; of a single label, bool.

        Raises: UserError that names the file and what it holds besides the classes.
        """
        return self.labels_of(read_colours(path) if self.in_colour else read_mask(path), path)

    def labels_of(self, values: np.ndarray, path: Path) -> np.ndarray:
        """Return what `read` does, from values already read."""
        found, inverse, number = np.unique(values, return_inverse=True, return_counts=True)
        if unknown := [i for i in np.argsort(-number) if int(found[i]) not in self.stored]:
            shown = ", ".join(f"{self._text(int(found[i]))} in {number[i]} pixels" for i in unknown[:_SHOWN])
            more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
            raise UserError(f"{path}: holds {shown}{more}, which --classes does not name; {_hint(path)}")
        labels = np.array([self.stored[int(value)] for value in found], np.uint8)[inverse].reshape(values.shape)
        return labels > 0 if len(self.names) == 1 else labels

    def _text(self, stored: int) -> str:
        return f"#{stored:06x}" if self.in_colour else f"value {stored}"


def parse_classes(texts: Sequence[str]) -> Classes:
    """Read `name=#rrggbb` or `name=value` texts. A class named background replaces #000000, or value 0.

    Raises: ConfigError that names the text.
    """
    stored: dict[int, int] = {}
    names: list[str] = []
    kinds = set()
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        match = re.fullmatch(r"(?P<colour>#[0-9a-fA-F]{6})|(?P<value>\d{1,5})", value)
        if not (equals and name and match):
            raise ConfigError(f"--classes {text}: {_FORM}")
        kinds.add(match.lastgroup)
        number = int(value.removeprefix("#"), 16 if match["colour"] else 10)
        if number in stored or name in names:
            raise ConfigError(f"--classes {text}: {value if number in stored else name} is given twice")
        if name.lower() == "background":
            stored[number] = 0
        else:
            names.append(name)
            stored[number] = len(names)
    if len(kinds) > 1:
        raise ConfigError(f"--classes {' '.join(texts)}: mixes colours and values; {_FORM}")
    if not names:
        raise ConfigError(f"--classes {' '.join(texts)}: names no class besides background; {_FORM}")
    if 0 not in stored.values() and stored.setdefault(0, 0):
        raise ConfigError(f"--classes {' '.join(texts)}: takes 0, background's value; give background=VALUE as well")
    return Classes(names, stored, kinds == {"colour"})


def read_colours(path: Path) -> np.ndarray:
    """Return an image file's colours, (H, W), each 0xRRGGBB. Raises: UserError for a file of more than 8 bits."""
    image = read_image(path)
    if image.dtype != np.uint8:
        raise UserError(f"{path}: a mask in colours of 16 bits; save it with 8")
    red, green, blue = np.moveaxis(image.astype(np.int32), -1, 0)
    return (red << 16) + (green << 8) + blue


def check_without_classes(path: Path) -> None:
    """Read a first mask as stored values. Raises: UserError that gives the `--classes` for a mask in colour."""
    try:
        read_mask(path)
    except UserError:
        found = np.unique(read_colours(path)).tolist()
        foreground = [f"#{colour:06x}" for colour in found if colour]
        if len(found) > _MAX_COLOURS:
            raise UserError(f"{path}: {len(found)} colours are not labels; {_hint(path)}") from None
        texts = " ".join(f"NAME{i}={colour}" for i, colour in enumerate(foreground, start=1))
        raise UserError(f"{path}: a mask in colour; name its colours: --classes {texts}") from None


def _hint(path: Path) -> str:
    if path.suffix.lower() in (".jpg", ".jpeg"):
        return "JPEG blurs colours and values; export the masks as PNG"
    return "name them too, or is it an image, or a mask with smooth edges?"
