"""Writes data.yaml beside a user's data: the config that trains on it."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from datasets.masks import size_text
from utils.config.sources import dump_yaml
from utils.errors import UserError
from utils.files import write_text

DATA_CONFIG = "data.yaml"

_AUGMENTATION = {
    "use_rotation": True,
    "rotation_angle": 10,
    "use_brightness": True,
    "brightness": 0.2,
    "use_horizontal_flip": True,
    "use_vertical_flip": True,
}
_SHOWN_SIZES = 3


class Written(NamedTuple):
    """The size (H, W) and the mask values of an image that was written, and the largest value of one of 16 bits."""

    size: tuple[int, int]
    values: tuple[int, ...]
    brightest: int | None = None


def write_data_config(
    root: Path, output: Path, written: Sequence[Written], splits: Mapping[str, str], labels: Mapping[int, str]
) -> None:
    """Write `root`/data.yaml. Its root_path is its own folder, so that it moves with the data.

    Where files of 16 bits hold fewer, such as 12, `a_max` is the largest value of so many bits.

    Args:
        output: the set's final place.
        splits: of the images, by name.
        labels: name of each foreground value; where it is empty, the values found get names to be changed.
    """
    found = sorted({value for one in written for value in one.values} - {0})
    names = dict(labels) or (
        {1: "Foreground"} if set(found) <= {1, 255} else {value: f"Label {value}" for value in found}
    )
    # As people write it: JSON's lists and texts are YAML too.
    data = {
        "root_path": ".",
        "name": output.resolve().name,
        "label_list": [0, *names],
        "label_names": ["Background", *names.values()],
    }
    entries = "".join(f"  {key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in data.items())
    lines = [
        f"{len(written)} images of {_sizes(written)} (width x height): {_counts(splits)}.",
        "",
        "Check it first:  python main.py check --data_config THIS_FILE",
        "Relative paths start at this file. label_names are the text prompts: name what the labels show.",
        "The image size follows the model config. --set section.key=value changes any key on the command line.",
    ]
    transforms = _AUGMENTATION | _window(written)
    comments = "".join(f"# {line}".rstrip() + "\n" for line in lines)
    write_text(root / DATA_CONFIG, comments + f"\n{dump_yaml({'data_transforms': transforms})}\ndata:\n{entries}")


def check_values(names: Sequence[str], written: Sequence[Written]) -> None:
    """Raises UserError where most masks hold 0 and 255 alone and some hold others too: grey edges, not labels.

    Args:
        names: of the images, in the order of `written`.
    """
    grey = [(name, one.values) for name, one in zip(names, written, strict=True) if set(one.values) - {0, 255}]
    if 0 < len(grey) < len(written) / 2 and any(255 in one.values for one in written):
        (name, values), others = grey[0], len(written) - len(grey)
        raise UserError(
            f"{name}: its mask holds values {', '.join(map(str, values[:4]))}, ...; {others} of {len(written)} masks "
            "hold 0 and 255 alone. Are these grey edges, as JPEG leaves them? --threshold 127 makes all masks 0 and "
            "255; --classes names the values that are labels"
        )


def _window(written: Sequence[Written]) -> dict[str, int]:
    brightest = max(one.brightest or 0 for one in written)
    if any(one.brightest is None for one in written) or not 0 < brightest < 2**15:
        return {}
    return {"a_max": 2 ** brightest.bit_length() - 1}


def _sizes(written: Sequence[Written]) -> str:
    number = Counter(size_text(one.size) for one in written)
    shown = [size for size, _ in number.most_common(_SHOWN_SIZES)]
    return ", ".join(shown) + (f" and {len(number) - _SHOWN_SIZES} other sizes" if len(number) > _SHOWN_SIZES else "")


def _counts(splits: Mapping[str, str]) -> str:
    return ", ".join(f"{count} {split}" for split, count in Counter(splits.values()).most_common())
