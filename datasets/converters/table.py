"""The table of data sets that `prepare` can make: a new one is a converter file and a line here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from datasets.converters import (
    arcade,
    chase_db1,
    coco,
    dias,
    drive,
    folder,
    nnunet,
    npz,
    rose,
    shapes,
    stare,
    synthetic,
    xray_angio,
)
from datasets.converters.plan import Plan


@dataclass(frozen=True)
class Converter:
    """One kind of data set.

    Attributes:
        convert: `convert(source: folder or None, *, seed, and options with defaults) -> Plan`.
        digests: of the official archives, {file name: "sha256:..." or "md5:..."}.
    """

    convert: Callable[..., Plan]
    digests: Mapping[str, str] = field(default_factory=dict)


CONVERTERS: dict[str, Converter] = {
    "arcade": Converter(arcade.convert, arcade.DIGESTS),
    "chase_db1": Converter(chase_db1.convert),
    "coco": Converter(coco.convert),
    "dias": Converter(dias.convert, dias.DIGESTS),
    "drive": Converter(drive.convert, drive.DIGESTS),
    "folder": Converter(folder.convert),
    "nnunet": Converter(nnunet.convert),
    "npz": Converter(npz.convert),
    "rose": Converter(rose.convert),
    "shapes": Converter(shapes.convert),
    "stare": Converter(stare.convert),
    "synthetic": Converter(synthetic.convert),
    "xray_angio": Converter(xray_angio.convert, xray_angio.DIGESTS),
}
