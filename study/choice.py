"""Chooses the learning rate of each method on training images that are set aside."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from evaluation.results import read_run_results
from experiments.sweep_plan import SweepPlan
from study.plan import Study
from study.sweep_plans import choice_plan, choice_row


@dataclass(frozen=True)
class Choice:
    """The learning rates tried for one row.

    Attributes:
        dice: Dice on the validation images at their own size, the mean over the datasets, by learning rate in
            ascending order.
    """

    row: str
    dice: Mapping[float, float]

    @property
    def best(self) -> float:
        """The rate with the highest Dice; of equal ones the lowest."""
        return max(self.dice, key=lambda rate: self.dice[rate])

    @property
    def at_edge(self) -> bool:
        """Whether the best rate is the lowest or highest tried, so that a rate beyond it may be better."""
        return self.best in (min(self.dice), max(self.dice))


def choose(study: Study, rows: Iterable[str], run: Callable[[SweepPlan], None]) -> list[Choice]:
    """Tries `first_rates` for each trained row, then further rates of the ladder while the best is at an edge.

    Args:
        run: runs every run of a plan that has no results yet.

    Raises:
        UserError: `run` left a run without results.
    """
    tried = {name: list(study.first_rates) for name in rows if study.rows[name].trained}
    while tried:
        run(choice_plan(study, tried))
        choices = [
            Choice(name, {rate: _validation_dice(study, name, rate) for rate in sorted(rates)})
            for name, rates in tried.items()
        ]
        further = {choice.row: _rates_beyond(choice, study.learning_rates) for choice in choices}
        if not any(further.values()):
            return choices
        for name, rates in further.items():
            tried[name] += rates
    return []


def _rates_beyond(choice: Choice, ladder: list[float]) -> list[float]:
    """The ladder's neighbours of the best rate that were not tried; none unless the best is at an edge."""
    best = ladder.index(choice.best)
    return [rate for rate in ladder[max(best - 1, 0) : best + 2] if rate not in choice.dice]


def _validation_dice(study: Study, name: str, rate: float) -> float:
    folders = [choice_folder(study, name, rate, dataset) for dataset in study.choice_datasets]
    return fmean(read_run_results(folder).last.native.dice.mean for folder in folders)


def choice_folder(study: Study, name: str, rate: float, dataset: str) -> Path:
    """The folder of the run that tried one learning rate for one row on one dataset."""
    return study.output / "choice" / choice_row(name, rate) / dataset / str(study.seeds[0])


def chosen_rates(choices: Iterable[Choice]) -> dict[str, float]:
    """The chosen learning rate of each row."""
    return {choice.row: choice.best for choice in choices}
