"""The table's cells, bests, averages, missing cells and tests from runs with known numbers."""

import json

import pytest

from evaluation.metrics import bootstrap_interval
from report.gather import gather
from report.numbers import cell_text, comparison_text
from report.table import build_table


def table_of(maker, weights="last", size="img_size"):
    return build_table(gather(maker.root).runs, weights, size)


def rows_of(section):
    return {row.label: row for row in section.rows}


def test_the_whole_table_1_from_known_numbers(maker, paper):
    """Ours is the paper's Dice + 0.010 and + 0.014, its HD95 - 2 and - 1: every cell of every row is known."""
    paper.runs(maker, list(paper.rows))
    first, sam2 = table_of(maker).sections
    assert list(first.columns) == list(paper.datasets)
    assert (first.average_title, sam2.average_title) == ("Average", "Average of ARCADE, ROSE")
    assert list(sam2.columns) == ["ARCADE", "ROSE"]
    cells = 0
    for section, names in ((first, list(paper.rows)[:13]), (sam2, list(paper.rows)[13:])):
        assert [row.paper.name for row in section.rows] == names
        for row in section.rows:
            for column in section.columns:
                expected = paper.printed(row.paper.name, column)
                dice, hd95 = (cell_text(row.cells[column], metric) for metric in ("dice", "hd95"))
                if expected is None:
                    assert (dice.mean, dice.paper, hd95.mean) == ("", "", "")
                    continue
                cells += 1
                mean = f"{float(expected[0]) + 0.012:.3f}"
                assert (dice.mean, dice.std, dice.seeds) == (mean, "0.003", "2 seeds")
                assert dice.interval == f"[{mean}, {mean}]"
                assert (dice.paper, dice.difference) == (expected[0], "+0.012")
                if expected[1] == "-":
                    assert (hd95.mean, hd95.paper, hd95.difference) == ("498.50", "", "")
                else:
                    mean = f"{float(expected[1]) - 1.5:.2f}"
                    assert (hd95.mean, hd95.std) == (mean, "0.71")
                    assert (hd95.paper, hd95.difference) == (expected[1], "-1.50")
    assert cells == 13 * 5 - 3 + 5 * 2


def test_the_average_is_over_the_papers_five_and_keeps_the_spread_over_seeds(maker, paper):
    paper.runs(maker, ["salt_256", "lora_4"])
    for folder in (maker.root / "lora_4").glob("DIAS_*"):
        (folder / "results.json").unlink()
    (section,) = table_of(maker).sections
    rows = rows_of(section)
    average = cell_text(rows["SALT 256"].average, "dice")
    # (.81 + .71 + .67 + .77 + .75) / 5 + .012 = .754
    assert (average.mean, average.std, average.paper, average.difference) == ("0.754", "0.003", "0.74", "+0.014")
    assert rows["LoRA 4"].average.scores == {}
    missing = section.missing()
    assert "LoRA 4: DIAS, Average" in missing
    assert "UNETR: no run" in missing
    assert not any(line.startswith("SALT 256") for line in missing)
    assert len(missing) == 12  # 11 rows without a run, and LoRA 4


def test_an_average_over_different_seeds_has_no_spread(maker):
    maker.run("x", "one", dice=[0.4], seed=0, img_size=64)
    maker.run("x", "two", dice=[0.6], seed=1, img_size=64)
    (section,) = table_of(maker).sections
    text = cell_text(section.rows[0].average, "dice")
    assert section.average_title == "Average of one, two"
    assert (text.mean, text.std, text.seeds) == ("0.500", "", "")


def test_datasets_that_not_every_row_has_join_no_average(maker):
    for row, datasets in (("lora_4", ("a", "b", "c")), ("salt_4", ("a", "c"))):
        for dataset in datasets:
            maker.run(row, dataset, img_size=64)
    (section,) = table_of(maker).sections
    assert section.averaged == ["a", "c"]
    assert section.missing() == ["SAM ViT-B, SALT 4 (top 500, neck 250): b"]


def test_one_seed_has_no_spread_and_its_interval_is_the_bootstraps(maker):
    maker.run("salt_256", dice=[0.2, 0.5, 0.9])
    (section,) = table_of(maker).sections
    score = rows_of(section)["SALT 256"].cells["DRIVE"].scores["dice"]
    assert score.std is None
    assert score.interval == pytest.approx(bootstrap_interval([0.2, 0.5, 0.9]))


def test_the_interval_is_over_images_averaged_over_the_seeds(maker):
    maker.run("salt_256", dice=[0.2, 0.8], seed=0)
    maker.run("salt_256", dice=[0.4, 0.4], seed=1)
    (section,) = table_of(maker).sections
    cell = rows_of(section)["SALT 256"].cells["DRIVE"]
    assert cell.dice_by_image == {("00.png", "Vessel"): pytest.approx(0.3), ("01.png", "Vessel"): pytest.approx(0.6)}
    assert cell.scores["dice"].interval == pytest.approx(bootstrap_interval([0.3, 0.6]))
    assert cell.scores["dice"].std == pytest.approx(0.1 / 2**0.5)


def test_last_and_best_val_and_the_two_sizes_are_never_mixed(maker):
    maker.run("salt_256", dice=[0.6], hd95=[8.0])
    maker.run("sam_text", dice=[0.1])
    expected = {
        ("last", "img_size"): ("0.600", "8.00", "0.100"),
        ("last", "native"): ("0.500", "16.00", "0.000"),
        ("best_val", "img_size"): ("0.650", "8.00", ""),
        ("best_val", "native"): ("0.550", "16.00", ""),
    }
    for (weights, size), (dice, hd95, untrained) in expected.items():
        table = table_of(maker, weights, size)
        rows = rows_of(table.sections[0])
        cell = rows["SALT 256"].cells["DRIVE"]
        assert (cell_text(cell, "dice").mean, cell_text(cell, "hd95").mean) == (dice, hd95)
        assert cell.dice_by_image == {("00.png", "Vessel"): pytest.approx(float(dice))}
        assert cell_text(rows["SAM, text prompt"].cells["DRIVE"], "dice").mean == untrained
        missing = "SAM, text prompt: no scores of these weights" in table.sections[0].missing()
        assert missing == (weights == "best_val")
        # DRIVE's configs validate on the test images, which only best_val has seen.
        assert any("epoch chosen on test images" in remark for remark in table.remarks()) == (weights == "best_val")


def test_best_is_highest_dice_and_lowest_hd95_as_rounded_without_the_oracle(maker):
    maker.run("salt_256", dice=[0.7004], hd95=[9.0])
    maker.run("lora_256", dice=[0.6996], hd95=[8.0])
    maker.run("lora_4", dice=[0.6994], hd95=[8.5])
    maker.run("medsam", dice=[0.9], hd95=[1.0], prompt="box_oracle")
    (section,) = table_of(maker).sections

    def best(metric):
        return [row.label for row in section.rows if section.is_best(row, "DRIVE", metric)]

    assert best("dice") == ["LoRA 256", "SALT 256"]
    assert best("hd95") == ["LoRA 256"]


def test_salt_is_tested_against_every_row_with_holm_within_a_dataset(maker):
    lower = [0.70, 0.69, 0.68, 0.67, 0.66, 0.65]
    maker.run("salt_256", dice=[0.71, 0.71, 0.71, 0.71, 0.71, 0.71])
    maker.run("lora_4", dice=lower)  # differences .01 to .06, one sign: p = 2/64
    maker.run("salt_4", dice=[0.72, *lower[1:]])  # one of the smallest size against: 2 ties, W = 1.5
    maker.run("lora_256", dice=[0.71] * 6)
    maker.run("ssam", dice=lower, dataset="ROSE")  # no SALT 256 there: no test
    (section,) = table_of(maker).sections
    rows, tests = rows_of(section), section.tests
    assert tests.reference is rows["SALT 256"]
    p = {label: tests.of(rows[label], "DRIVE").test.p for label in ("LoRA 4", "LoRA 256", "SALT 4")}
    assert p["LoRA 4"] == pytest.approx(1 / 32)
    assert p["LoRA 256"] == 1.0
    assert 1 / 32 < p["SALT 4"] < 1
    corrected = {label: tests.of(rows[label], "DRIVE").p_holm for label in p}
    assert corrected["LoRA 4"] == pytest.approx(3 / 32)
    assert corrected["SALT 4"] == pytest.approx(max(3 / 32, 2 * p["SALT 4"]))
    assert corrected["LoRA 256"] == 1.0
    assert comparison_text(tests.of(rows["LoRA 4"], "DRIVE")) == "0.094 (p 0.031, n 6, +0.035)"
    assert tests.of(rows["SALT 256"], "DRIVE") is None
    assert "ROSE" not in tests.by_column
    # With 6 images nothing can be significant after a correction over three methods.
    assert tests.too_few_images() == [
        "DRIVE: 6 images and 3 methods: p cannot fall below 0.0312, nor the smallest corrected p below 0.0938"
    ]


def test_rows_over_other_images_are_an_error_line_not_a_test(maker):
    maker.run("salt_256", dice=[0.5] * 4)
    maker.run("lora_4", dice=[0.4] * 4, names=["00.png", "01.png", "02.png", "other.png"])
    maker.run("lora_256", dice=[0.4] * 4)
    (maker.run("ssam", dice=[0.4] * 4) / "per_image.csv").unlink()
    (section,) = table_of(maker).sections
    assert section.tests.errors() == [
        "DRIVE: SALT 256 against S-SAM: no scores image by image of S-SAM",
        "DRIVE: SALT 256 against LoRA 4: different test images: 2 samples are in one of the two alone",
    ]
    rows = rows_of(section)
    # The one test there is was corrected for being one.
    comparison = section.tests.of(rows["LoRA 256"], "DRIVE")
    assert comparison.p_holm == comparison.test.p == pytest.approx(2 / 16)
    # One seed without per_image.csv: the interval that the run itself wrote.
    assert rows["S-SAM"].cells["DRIVE"].scores["dice"].interval == (0.4, 0.4)


def test_without_salt_256_the_highest_lora_rank_is_tested(maker):
    for rank in (2, 16, 8):
        ranks = {"svd_rank_linear": 32, "svd_rank_conv2d": 32, "r_lora": rank}
        maker.run("x", folder=str(rank), sam_type="nano", ranks=ranks, img_size=64)
    maker.run("ssam", sam_type="nano", img_size=64)
    (section,) = table_of(maker).sections
    assert section.tests.reference.label.startswith("nano SAM, SALT 16")


def test_no_salt_no_tests(maker):
    maker.run("lora_4")
    (section,) = table_of(maker).sections
    assert section.tests.reference is None
    assert section.tests.by_column == {}


def test_seeds_that_differ_in_more_than_the_seed_are_remarked(maker):
    first = maker.run("salt_256", dice=[0.5] * 3, seed=0)
    second = maker.run("salt_256", dice=[0.5] * 2, seed=1, epochs=20)
    remarks = table_of(maker).remarks()
    both = f"{first}, {second}"
    assert f"{both}: seeds with different test images; no interval, no test" in remarks
    assert f"{both}: seeds with 2 and 3 test samples in one mean" in remarks
    assert f"{both}: seeds with different epochs in one mean" in remarks


def test_a_per_image_file_of_other_numbers_is_remarked(maker):
    folder = maker.run("salt_256", dice=[0.5, 0.5])
    results = json.loads((folder / "results.json").read_text())
    results["last"]["img_size"]["dice"]["mean"] = 0.9
    (folder / "results.json").write_text(json.dumps(results))
    assert any("give different means of dice" in remark for remark in table_of(maker).remarks())


def test_sizes_and_sam2_are_sections_of_their_own(maker):
    maker.run("lora_4", "set", sam_type="nano", img_size=256)
    maker.run("lora_4", "set", sam_type="nano", img_size=64, folder="b")
    maker.run("sam2_svd", "ROSE")
    maker.run("salt_4", "DRIVE")
    titles = [section.title for section in table_of(maker).sections]
    assert titles == [
        "Models at 512 pixels (the paper: Table 1)",
        "SAM2 at 512 pixels",
        "Models at 64 pixels",
        "Models at 256 pixels",
    ]
