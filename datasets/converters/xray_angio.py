"""XRay-Angio (DCA1): coronary arteries in 134 X-ray angiograms."""

from pathlib import Path

from datasets.converters.plan import Case, Plan, pair_reader
from datasets.converters.search import find_in_source, match_files
from utils.errors import UserError

DIGESTS = {
    "DB_Angiograms_134.zip": "sha256:7161638a6e92c6a6e47a747db039292c8a1a6bad809aac0d1fd16a10a6f22a11",
}

_NUMBERS = range(1, 135)
_SPLIT_SIZES = {"train": 93, "test": 41}
_THRESHOLD = 100  # vessels are bright in the masks, but not 255 everywhere


def convert(source: Path | None, *, seed: int) -> Plan:
    """Pair N.pgm with N_gt.pgm, N from 1 to 134. 93 train and 41 test images are drawn, as many as the paper's.

    Raises: UserError that names what is missing.
    """
    folder = find_in_source(source, "1_gt.pgm", "1.pgm").parent
    images, masks = match_files(folder, r"(\d+)\.pgm", int), match_files(folder, r"(\d+)_gt\.pgm", int)
    for number in _NUMBERS:
        for name, found in ((f"{number}.pgm", images), (f"{number}_gt.pgm", masks)):
            if number not in found:
                raise UserError(f"{folder / name}: missing; the set is incomplete")
    cases = [Case(str(n), pair_reader(images[n], masks[n], _THRESHOLD)) for n in _NUMBERS]
    return Plan(cases, _SPLIT_SIZES)
