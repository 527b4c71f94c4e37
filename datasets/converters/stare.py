"""STARE: retinal vessels, 20 images, each file compressed on its own."""

import gzip
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from datasets.converters.field_of_view import by_threshold
from datasets.converters.plan import Case, Pair, Plan, binary_mask, check_pairs
from datasets.converters.search import match_files_below
from datasets.io import MAX_PIXELS, read_image, read_mask
from datasets.masks import check_size
from utils.errors import UserError

_SPLIT_SIZES = {"train": 14, "test": 6}
_THRESHOLD = 128
_OBSERVERS = {1: "ah", 2: "vk"}
_MAX_BYTES = 3 * MAX_PIXELS + 4096  # of an 8-bit PPM


def convert(source: Path | None, *, seed: int, observer: int = 1, fov_threshold: int | None = None) -> Plan:
    """Pair im0001.ppm.gz with im0001.ah.ppm.gz. They may be in different folders, since they come in two archives.

    Uncompressed .ppm files are read as well. The set has no official split and is not in the paper: 14 train and 6 test
    images are drawn, as many as DRIVE's.

    Args:
        observer: 1 (ah) or 2 (vk), whose masks to use.
        fov_threshold: adds fields of view, see `by_threshold`; the set comes without.

    Raises: UserError that names what is missing.
    """
    kind = _OBSERVERS[observer]
    images = match_files_below(source, r"im(\d{4})\.ppm(?:\.gz)?", int)
    masks = match_files_below(source, rf"im(\d{{4}})\.{kind}\.ppm(?:\.gz)?", int)
    check_pairs(images, masks, f".{kind}.ppm")
    fov = by_threshold(fov_threshold)
    cases = [Case(f"im{n:04d}", partial(_read, image, masks[n]), fov=fov) for n, image in images.items()]
    return Plan(cases, _SPLIT_SIZES)


def _read(image: Path, mask: Path) -> Pair:
    with _decompressed(image) as copy:
        values = read_image(copy)
    with _decompressed(mask) as copy:
        vessels = binary_mask(read_mask(copy), mask, _THRESHOLD)
    check_size(vessels, mask, values.shape, image)
    return values, vessels


@contextmanager
def _decompressed(path: Path) -> Iterator[Path]:
    """Yield a decompressed copy of a .gz file, or any other file itself. Errors name the file, not the copy."""
    if path.suffix.lower() != ".gz":
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.stem
        try:
            with gzip.open(path) as packed:
                content = packed.read(_MAX_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{path}: not a readable gzip file ({error}); download it again") from error
        if len(content) > _MAX_BYTES:
            raise UserError(
                f"{path}: unpacks to more than {_MAX_BYTES} bytes, more than any image of this set; download it again"
            )
        copy.write_bytes(content)
        try:
            yield copy
        except UserError as error:
            raise UserError(str(error).replace(str(copy), str(path))) from error
