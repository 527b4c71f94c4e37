"""The learning rate of each method, chosen on training images that are set aside."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from experiments.sweep import SweepPlan
from study.plan import DATASET, Study, choice_plan, choice_row
from utils.errors import UserError
from utils.files import read_json

COLUMNS = ("row", "learning_rate", "validation_dice", "chosen")


@dataclass(frozen=True)
class Choice:
    """The rates tried for one row with their Dice on the validation images, and the best of them.

    Attributes:
        dice: Dice at the images' own size, by learning rate, rising.
        at_edge: whether the best is the lowest or highest tried, so that the best rate may lie beyond it.
    """

    row: str
    dice: Mapping[float, float]

    @property
    def best(self) -> float:
        """The rate with the highest Dice; of equal ones the lowest."""
        return max(self.dice, key=lambda rate: self.dice[rate])

    @property
    def at_edge(self) -> bool:
        return self.best in (min(self.dice), max(self.dice))


def choose(study: Study, rows: Iterable[str], run: Callable[[SweepPlan], None]) -> list[Choice]:
    """Tries `first_rates` of the trained rows among `rows`, then the ladder's next wherever the best is at the edge.

    Args:
        run: runs what of a plan has no results.

    Raises: UserError where `run` left a run without results.
    """
    tried = {name: list(study.first_rates) for name in rows if study.rows[name].trained}
    while tried:
        run(choice_plan(study, tried))
        choices = read_choices(study, tried)
        further = {choice.row: _beyond(choice, study.learning_rates) for choice in choices}
        if not any(further.values()):
            return choices
        for name, rates in further.items():
            tried[name] += rates
    return []


def read_choices(study: Study, tried: Mapping[str, Iterable[float]]) -> list[Choice]:
    """The choices that finished runs of the rates tried give."""
    return [Choice(name, {rate: _validation_dice(study, name, rate) for rate in sorted(tried[name])}) for name in tried]


def _beyond(choice: Choice, ladder: list[float]) -> list[float]:
    """The ladder's next rate on the side where the best is the last one tried; none where the ladder ends."""
    low, high = ladder.index(min(choice.dice)), ladder.index(max(choice.dice))
    best = ladder.index(choice.best)
    return ladder[low - 1 : low] if best == low and low > 0 else ladder[high + 1 : high + 2] if best == high else []


def _validation_dice(study: Study, name: str, rate: float) -> float:
    path = choice_folder(study, name, rate) / "results.json"
    if not path.is_file():
        raise UserError(f"{path} is not there")
    return float(read_json(path)["last"]["native"]["dice"]["mean"])


def choice_folder(study: Study, name: str, rate: float) -> Path:
    """The folder of the run that tried one learning rate of one row."""
    return study.output / "choice" / choice_row(name, rate) / DATASET / str(study.seeds[0])


def choices_csv(choices: Iterable[Choice]) -> str:
    """All rates tried, as CSV with the columns `COLUMNS`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for choice in choices:
        for rate, dice in choice.dice.items():
            writer.writerow([choice.row, f"{rate:g}", f"{dice:.6f}", int(rate == choice.best)])
    return text.getvalue()


def read_choices_csv(path: Path) -> list[Choice]:
    """What `choices_csv` wrote. Raises: UserError for a file that is missing or not whole."""
    dice: dict[str, dict[float, float]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                dice.setdefault(row["row"], {})[float(row["learning_rate"])] = float(row["validation_dice"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); the study without --seeds writes it") from error
    return [Choice(row, of_row) for row, of_row in dice.items()]


def chosen_rates(choices: Iterable[Choice]) -> dict[str, float]:
    """The chosen learning rate of each row."""
    return {choice.row: choice.best for choice in choices}
