"""XRay-Angio (DCA1): coronary arteries in 134 X-ray angiograms."""

from pathlib import Path

from datasets.converters.plan import Case, Plan, pair_of_files
from datasets.converters.search import files_by, find_path
from utils.errors import UserError

DIGESTS = {
    "DB_Angiograms_134.zip": "sha256:7161638a6e92c6a6e47a747db039292c8a1a6bad809aac0d1fd16a10a6f22a11",
}

_NUMBERS = range(1, 135)
_DRAW = {"train": 93, "test": 41}
_THRESHOLD = 100  # masks are bright where there is a vessel, but not 255 everywhere


def convert(source: Path | None, *, seed: int) -> Plan:
    """Pair N.pgm with N_gt.pgm, N from 1 to 134; the split is the paper's 93 train and 41 test.

    Raises: UserError that names what is missing.
    """
    folder = find_path(source, "1_gt.pgm", "1.pgm").parent
    images, masks = files_by(folder, r"(\d+)\.pgm", int), files_by(folder, r"(\d+)_gt\.pgm", int)
    for number in _NUMBERS:
        for name, found in ((f"{number}.pgm", images), (f"{number}_gt.pgm", masks)):
            if number not in found:
                raise UserError(f"{folder / name}: missing; the set is not whole")
    cases = [Case(str(n), pair_of_files(images[n], masks[n], _THRESHOLD)) for n in _NUMBERS]
    return Plan(cases, _DRAW)
