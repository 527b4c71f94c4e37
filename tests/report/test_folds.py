"""The folds of a cross-validation in the table: joined by seed, every image once, and said so."""

import html
import json

import numpy as np
import pytest

from evaluation.metrics import bootstrap_interval
from main import main
from report.folds import join_folds
from report.gather import gather
from report.table import build_table
from report.words import notes

# Dice of each image, by seed and fold: folds of unequal sizes.
FOLDS = {0: [[0.2, 0.4, 0.6], [0.8]], 1: [[0.3, 0.5, 0.7], [0.9]]}


def cross_validation(maker, row="salt_256", dataset="rose", gain=0.0, seeds=(0, 1), **changes):
    """Runs of both folds for every seed; HD95 is 10 x Dice."""
    for seed in seeds:
        number = 0
        for fold, dice in enumerate(FOLDS[seed]):
            names = [f"{number + i:02}.png" for i in range(len(dice))]
            number += len(dice)
            values = [value + gain for value in dice]
            folder = f"{row}/{seed}/fold{fold}"
            distances = [10 * value for value in values]
            maker.run(row, dataset, values, distances, seed, folder, names, fold=fold, **changes)


def joined(maker):
    gathered = gather(maker.root)
    assert gathered.problems == []
    return join_folds(gathered.runs)


def test_a_seeds_number_is_the_mean_over_all_images_of_its_folds(maker):
    cross_validation(maker)
    maker.run("lora_4", "rose", dice=[0.5], seed=0, folder="lora_4")  # a run without folds stays what it is
    runs, problems = joined(maker)
    assert problems == []
    assert [(run.results.seed, run.folds) for run in runs] == [(0, ()), (0, (0, 1)), (1, (0, 1))]
    (section,) = build_table(runs, "last", "img_size").sections
    cell = next(row for row in section.rows if row.label == "SALT 256").cells["ROSE"]
    assert cell.scores["dice"].by_seed == pytest.approx((0.5, 0.6))  # (.2 + .4 + .6 + .8) / 4
    assert cell.scores["hd95"].by_seed == pytest.approx((5.0, 6.0))
    assert cell.scores["dice"].std == pytest.approx(np.std([0.5, 0.6], ddof=1))
    by_image = [0.25, 0.45, 0.65, 0.85]  # each over the two seeds
    assert cell.scores["dice"].interval == pytest.approx(bootstrap_interval(by_image))
    assert (cell.seeds, cell.n, cell.remarks) == (2, 4, [])
    native = build_table(runs, "best_val", "native").sections[0]
    cell = next(row for row in native.rows if row.label == "SALT 256").cells["ROSE"]
    assert cell.scores["dice"].by_seed == pytest.approx((0.45, 0.55))


def test_one_seed_has_an_interval_over_all_images(maker):
    cross_validation(maker, seeds=(0,))
    [run], _ = joined(maker)
    (section,) = build_table([run], "last", "img_size").sections
    [row] = [row for row in section.rows if row.runs]
    score = row.cells["ROSE"].scores["dice"]
    assert score.interval == pytest.approx(bootstrap_interval([0.2, 0.4, 0.6, 0.8]))
    assert score.std is None


def test_methods_are_tested_over_the_images_of_all_folds(maker):
    cross_validation(maker)
    cross_validation(maker, "lora_4", gain=-0.1)
    runs, _ = joined(maker)
    (section,) = build_table(runs, "last", "img_size").sections
    [comparison] = section.tests.by_column["ROSE"]
    assert comparison.test.n == 4
    assert comparison.test.difference == pytest.approx(0.1)


def test_the_command_says_which_folds_and_takes_none_for_a_duplicate(maker, capsys, caplog):
    cross_validation(maker)
    assert main(["table", "--runs", str(maker.root)]) == 0
    assert "same method" not in capsys.readouterr().err + caplog.text
    for name in ("table.md", "table.tex", "index.html"):
        text = html.unescape((maker.root / "table" / name).read_text(encoding="utf-8"))
        assert "ROSE: cross-validation, folds 0, 1: each seed's number is the mean over its folds" in text
    markdown = (maker.root / "table" / "table.md").read_text(encoding="utf-8")
    assert "0.550 ± 0.071" in markdown
    assert "2 seeds" in markdown


def test_a_fold_twice_is_a_duplicate(maker):
    cross_validation(maker, seeds=(0,))
    maker.run("salt_256", "rose", FOLDS[0][1], folder="z", fold=1)
    [problem] = gather(maker.root).problems
    assert "same method, settings, dataset, seed (0) and fold (1) as" in problem


def test_folds_that_tested_the_same_images_have_no_interval(maker):
    for fold in (0, 1):
        maker.run("salt_256", "rose", [0.5, 0.6], folder=f"{fold}", fold=fold)
    [run], [problem] = join_folds(gather(maker.root).runs)
    assert "folds that tested the same images; no interval, no test" in problem
    assert run.images == {}
    (section,) = build_table([run], "last", "img_size").sections
    [row] = [row for row in section.rows if row.runs]
    assert row.cells["ROSE"].scores["dice"].interval is None
    assert row.cells["ROSE"].scores["dice"].mean == pytest.approx(0.55)


def test_what_folds_should_have_in_common_is_said(maker, caplog):
    cross_validation(maker, seeds=(0,))
    path = maker.root / "salt_256" / "0" / "fold1" / "results.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "epochs": 100}))
    assert main(["table", "--runs", str(maker.root)]) == 0
    assert "folds with different epochs in one mean" in caplog.text
    assert "folds with different epochs in one mean" in (maker.root / "table" / "table.md").read_text(encoding="utf-8")


def test_tables_without_folds_say_nothing_of_them(maker):
    maker.run("salt_256", "rose", [0.5])
    runs, problems = joined(maker)
    assert problems == []
    assert not [line for line in notes(build_table(runs, "last", "img_size")) if "fold" in line]
