"""The learning rate of each method, by runs whose results the test makes up."""

import json

import pytest

from experiments.sweep_plan import sweep_runs
from study.choice import choose, chosen_rates
from study.csv_files import choices_csv, read_choices_csv
from utils.errors import UserError


@pytest.fixture
def run(study, finish):
    """A runner that gives each run a Dice by row and rate, and keeps which runs each round had."""

    def make(dice):
        rounds = []

        def runner(plan):
            rounds.append([run.row for run in sweep_runs(plan) if run.state != "done"])
            for run in [run for run in sweep_runs(plan) if run.state != "done"]:
                name, _, rate = run.row.rpartition("_lr")
                finish(run.row, run.seed, [dice[name][float(rate)]], part="choice")
                results = json.loads(run.folder.results.read_text())
                results["last"]["img_size"]["dice"]["mean"] *= -1  # is not what the choice looks at
                run.folder.results.write_text(json.dumps(results))

        return runner, rounds

    return make


DICE = {
    "lora": {1e-4: 0.9, 3e-4: 0.5, 1e-3: 0.7, 3e-3: 0.6, 1e-2: 0.9},  # 0.9 lies beyond what needs to be tried
    "salt": {1e-4: 0.1, 3e-4: 0.2, 1e-3: 0.3, 3e-3: 0.4, 1e-2: 0.5},
}


def test_rates_are_tried_until_the_best_has_neighbours_or_the_ladder_ends(study, run):
    runner, rounds = run(DICE)
    lora, salt = choose(study, study.rows, runner)
    assert rounds == [
        ["lora_lr0.0003", "lora_lr0.001", "lora_lr0.003", "salt_lr0.0003", "salt_lr0.001", "salt_lr0.003"],
        ["salt_lr0.01"],
    ]
    assert (lora.best, lora.at_edge) == (1e-3, False)
    assert (salt.best, salt.at_edge) == (1e-2, True)
    assert list(salt.dice) == [3e-4, 1e-3, 3e-3, 1e-2]
    assert chosen_rates([lora, salt]) == {"lora": 1e-3, "salt": 1e-2}


def test_the_ladder_is_gone_down_as_well(study, run):
    dice = {**DICE, "lora": {1e-4: 0.8, 3e-4: 0.7, 1e-3: 0.6, 3e-3: 0.5}}
    runner, rounds = run(dice)
    assert choose(study, study.rows, runner)[0].best == 1e-4
    assert rounds[1] == ["lora_lr0.0001", "salt_lr0.01"]


def test_of_equal_rates_the_lowest_is_chosen(study, run):
    runner, _ = run({**DICE, "lora": {3e-4: 0.1, 1e-3: 0.6, 3e-3: 0.6}})
    assert choose(study, study.rows, runner)[0].best == 1e-3


def test_the_choice_is_written_and_read_back(study, run, tmp_path):
    choices = choose(study, study.rows, run(DICE)[0])
    path = tmp_path / "rates.csv"
    path.write_text(choices_csv(choices))
    assert path.read_text().splitlines()[:3] == [
        "row,learning_rate,validation_dice,chosen",
        "lora,0.0003,0.500000,0",
        "lora,0.001,0.700000,1",
    ]
    assert read_choices_csv(path) == choices


def test_without_the_runs_there_is_no_choice(study, tmp_path):
    with pytest.raises(UserError, match=r"results\.json: cannot be read"):
        choose(study, study.rows, lambda _: None)
    with pytest.raises(UserError, match=r"rates\.csv: cannot be read"):
        read_choices_csv(tmp_path / "rates.csv")
