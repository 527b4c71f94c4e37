"""The CSV files of the study's page, written and read."""

import csv
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from evaluation.columns import IMAGE_COLUMNS
from study.choice import Choice
from study.claims import Claim, ClaimCheck
from study.results import Result
from utils.errors import UserError
from utils.files import csv_text

CHOICES, CLAIMS, PER_IMAGE, OTHER_SEEDS = "learning_rates.csv", "claims.csv", "per_image.csv", "other_seeds.csv"
ORDER = ("group", "better", "worse")
NUMBERS = ("difference", "low", "high", "p")
SCORES = sorted(IMAGE_COLUMNS, key=lambda column: not column.endswith("_native"))  # those at the images' own size first
Parsed = TypeVar("Parsed")


def choices_csv(choices: Iterable[Choice]) -> str:
    """All learning rates tried, with the Dice on the validation images."""
    rows = (
        [choice.row, f"{rate:g}", f"{dice:.6f}", int(rate == choice.best)]
        for choice in choices
        for rate, dice in choice.dice.items()
    )
    return csv_text(("row", "learning_rate", "validation_dice", "chosen"), rows)


def read_choices_csv(path: Path) -> list[Choice]:
    """Reads what `choices_csv` wrote. Raises: UserError for a missing or damaged file."""
    dice: dict[str, dict[float, float]] = {}
    for row, rate, value in _read(
        path, lambda line: (line["row"], float(line["learning_rate"]), float(line["validation_dice"]))
    ):
        dice.setdefault(row, {})[rate] = value
    return [Choice(row, of_row) for row, of_row in dice.items()]


def claims_csv(claims: Iterable[Claim]) -> str:
    """The claims, one in each line."""
    rows = ([*claim.order, *(f"{getattr(claim, name):.6f}" for name in NUMBERS)] for claim in claims)
    return csv_text((*ORDER, *NUMBERS), rows)


def read_claims_csv(path: Path) -> list[Claim]:
    """Reads what `claims_csv` wrote. Raises: UserError for a missing or damaged file."""
    return _read(path, lambda line: Claim(*_order(line), *(float(line[key]) for key in NUMBERS)))


def checks_csv(checks: Iterable[ClaimCheck]) -> str:
    """The difference of each claim in each other seed; empty where a run is missing."""
    rows = ([*claim.order, seed, "" if found is None else f"{found:.6f}"] for claim, seed, found in checks)
    return csv_text((*ORDER, "seed", "difference"), rows)


def read_checks_csv(path: Path, claims: Iterable[Claim]) -> list[ClaimCheck]:
    """Reads what `checks_csv` wrote; nothing where there is no file, or it is about other claims than these."""
    if not path.is_file():
        return []
    by_order = {claim.order: claim for claim in claims}
    lines = _read(path, lambda line: (_order(line), int(line["seed"]), line["difference"]))
    if {order for order, _, _ in lines} != set(by_order):
        return []
    return [ClaimCheck(by_order[order], seed, float(found) if found else None) for order, seed, found in lines]


def per_image_csv(results: Iterable[Result]) -> str:
    """The scores of every test image in every run, with the weights after the last epoch."""
    rows = (
        [result.name, dataset, run.results.seed, *image, *(_text(run.images["last"][image], key) for key in SCORES)]
        for result in results
        for dataset, runs in result.runs.items()
        for run in runs
        for image in result.images(dataset)
    )
    return csv_text(("row", "dataset", "seed", "image", "label", *SCORES), rows)


def _text(scores: Mapping[str, float], column: str) -> str:
    return f"{scores[column]:.6f}" if column in scores else ""


def _order(line: Mapping[str, str]) -> tuple[str, str, str]:
    return line["group"], line["better"], line["worse"]


def _read(path: Path, parse: Callable[[Mapping[str, str]], Parsed]) -> list[Parsed]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [parse(line) for line in csv.DictReader(file)]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run the study without --seeds to write it") from error
