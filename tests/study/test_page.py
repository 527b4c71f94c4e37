"""The page: every number from the runs' files, what is missing said, a person's reading kept."""

import csv

import pytest
from PIL import Image

from study.choice import Choice
from study.page import write_page
from study.plan import read_study
from study.results import read_results


@pytest.fixture
def no_figures(monkeypatch):
    """Drawing takes seconds, and one test looks at the figures."""
    monkeypatch.setattr("study.page.draw_learning", lambda *_: None)
    monkeypatch.setattr("study.page.draw_predictions", lambda *_: [])
    monkeypatch.setattr("study.page.draw_ablations", lambda *_: None)


CHOICES = [Choice("lora", {1e-3: 0.5, 3e-3: 0.6, 1e-2: 0.55}), Choice("salt", {1e-3: 0.5, 3e-3: 0.6})]
DICE = {"none": 0.1, "lora": 0.6, "salt": 0.7, "relu": 0.7}


@pytest.fixture
def page(study, finish, tmp_path):
    """page() writes the page of what `finished` wrote; page.finished(rows, seeds) writes runs."""

    def make():
        return write_page(study, CHOICES, tmp_path / "page").read_text()

    def finished(rows=DICE, seeds=(0, 1, 2)):
        for row in rows:
            for seed in seeds:
                finish(row, seed, [DICE[row] + 0.01 * image + 0.001 * seed for image in range(6)])

    def tried():
        for choice in CHOICES:
            finish(f"{choice.row}_lr{choice.best:g}", 0, [0.6] * 6, part="choice")

    tried()
    make.finished, make.folder = finished, tmp_path / "page"
    return make


def line_of(text, start):
    [line] = [line for line in text.splitlines() if line.startswith(start)]
    return line


def test_numbers_claims_and_files(page):
    page.finished()
    text = page()
    assert "The page is made from 12 of 12 runs." in text
    assert line_of(text, "| SALT | 1,234") == "| SALT | 1,234 (12.3%) | 0.003 | 0.1 | 3 |"
    scores = [line for line in text.splitlines() if line.startswith("| SALT | ") and "±" in line]
    assert scores == [
        "| SALT | 0.726 ± 0.001 [0.713, 0.739] |",
        "| SALT | 5.00 ± 0.00 [5.00, 5.00] |",
        "| SALT | 0.726 ± 0.001 [0.000, 0.000] |",
    ]
    assert line_of(text, "| before | 1,234").split(" | ")[2] == "-"
    assert line_of(text, "- SALT is above").startswith("- SALT is above before (+0.600, [0.600, 0.600]), LoRA (+0.100,")
    assert line_of(text, "| LoRA | +").startswith("| LoRA | +0.100 [+0.100, +0.100] | 0.031 | 0.062 |")
    assert line_of(text, "| nowhere |").startswith("| nowhere | 12.3% | 0.726")
    assert "No order is claimed here." in text.split("### ReLU")[1]
    assert line_of(text, "| lora | 0.500") == "| lora | 0.500 | **0.600** | 0.550 |"
    assert "At the edge of what was tried, so that a rate beyond it might be better: salt." in text
    assert "Not checked yet" in text
    rows = list(csv.DictReader((page.folder / "per_image.csv").open()))
    assert len(rows) == 12 * 6
    assert {"row": "salt", "seed": "2", "image": "05.png", "dice_native": "0.752000"}.items() <= rows[53].items()
    claims = {(row["better"], row["worse"]) for row in csv.DictReader((page.folder / "claims.csv").open())}
    assert claims == {("salt", "lora"), ("salt", "none"), ("lora", "none")}
    for picture in ("learning_1.png", "ablations.png"):
        with Image.open(page.folder / picture) as image:
            assert image.width > 1000
        assert f"]({picture})" in text


@pytest.mark.usefixtures("no_figures")
def test_an_unfinished_study_says_so(page):
    page.finished(["none", "lora"])
    page.finished(["salt"], [0])
    text = page()
    assert "The page is made from 7 of 12 runs: **unfinished**." in text
    assert "- Missing rows (seeds): salt (drive 1, drive 2); relu (drive 0, drive 1, drive 2)." in text
    assert "## Ablations" not in text


@pytest.mark.usefixtures("no_figures")
def test_a_persons_reading_is_kept_in_its_places(page):
    page.finished()
    page.folder.mkdir()
    (page.folder / "reading.md").write_text(
        "At the *top*.\n\n## Nano\n\nOf nano.\n\n## ReLU\nOf ReLU.\n\n## More\n\nM.\n"
    )
    for _ in range(2):
        text = page()
        assert text.index("At the *top*.") < text.index("## Nano")
        assert text.index("White: right") < text.index("Of nano.") < text.index("### ReLU")
        assert text.index("| nowhere |") < text.index("Of ReLU.") < text.index("## Learning rates")
        assert text.endswith("## More\n\nM.\n")
    assert "\n\n\n" not in text


@pytest.mark.usefixtures("no_figures")
def test_how_other_seeds_fared_is_told_for_the_pages_own_claims(page):
    page.finished()
    page()
    lines = [
        "group,better,worse,seed,difference",
        "Nano,salt,lora,7,0.05",
        "Nano,salt,none,7,-0.2",
        "Nano,lora,none,7,",
    ]
    (page.folder / "other_seeds.csv").write_text("\n".join(lines) + "\n")
    text = page()
    assert "Run with seed 7 after the claims were made: 1 of 3 claimed orders hold" in text
    assert "- Not: salt above none (Nano), seed 7: -0.200" in text
    assert "- Not: lora above none (Nano), seed 7: no run" in text
    (page.folder / "other_seeds.csv").write_text("\n".join(lines[:2]) + "\n")
    assert "Not checked yet for these claims" in page()


@pytest.mark.usefixtures("no_figures")
def test_a_seed_that_is_not_the_plans_changes_nothing(page, finish, study):
    page.finished()
    before = page()
    finish("lora", 9, [0.99] * 6)
    assert page() == before
    assert read_results(study, [9])["lora"].seeds == [9]


@pytest.mark.usefixtures("no_figures")
def test_several_datasets_have_columns_and_are_pooled_in_tests(plan, workspace, finish, tmp_path):
    sets = {name: {"data_config": str(workspace.data_config), "validation_images": 1} for name in ("drive", "b")}
    variants = {"relu": {"base": "sam", "overrides": ["ft.relu=none"], "lr_of": "salt", "datasets": ["b"]}}
    study = read_study(plan(datasets=sets, variants=variants))
    for row, dice in DICE.items():
        for seed in (0, 1, 2):
            for dataset, more in (("drive", 0.0), ("b", 0.2)):
                values = [dice + more + 0.01 * image + 0.001 * seed for image in range(6)]
                if row != "relu" or (dataset, seed) in (("b", 0), ("b", 1)):
                    finish(row, seed, values, dataset=dataset)
    results = read_results(study, [0, 1, 2])
    assert results["salt"].dice.shape == (3, 12)
    assert results["salt"].dice[1] == pytest.approx(
        [0.701 + 0.01 * i for i in range(6)] + [0.901 + 0.01 * i for i in range(6)]
    )
    assert results["relu"].seeds == [0, 1]
    for choice in CHOICES:
        for dataset in sets:
            finish(f"{choice.row}_lr{choice.best:g}", 0, [0.6] * 6, part="choice", dataset=dataset)
    text = write_page(study, CHOICES, tmp_path / "page").read_text()
    assert "| Method | drive | b | Average |" in text
    assert "| SALT | 0.726 ± 0.001 [0.713, 0.739] | 0.926 ± 0.001 [0.913, 0.939] | 0.826 ± 0.001 |" in text, text
    assert "The page is made from 20 of 21 runs: **unfinished**." in text
    assert "relu (b 2)" in text
    ablation = text.split("### ReLU")[1]
    assert "| core | 12.3% | 0.926 ± 0.001 [0.913, 0.939] |" in ablation, "on the dataset that both rows have"
    assert "| nowhere | 12.3% | 0.92" in ablation
    assert "the mean over all 12 test images" in text
    # 12 images that all agree: Wilcoxon's exact p is 2 / 2^12
    assert line_of(text, "| LoRA | +").startswith("| LoRA | +0.100 [+0.100, +0.100] | <0.001 |")


def test_a_variant_that_lacks_a_dataset_is_left_out_of_its_ablation(plan, workspace, finish, tmp_path):
    """A sweep goes from dataset to dataset, so that this state always occurs."""
    sets = {name: {"data_config": str(workspace.data_config), "validation_images": 1} for name in ("drive", "b")}
    variant = {"base": "sam", "overrides": ["ft.relu=none"], "lr_of": "salt"}
    ablation = {"title": "ReLU", "rows": {"salt": "core", "relu": "nowhere", "more": "elsewhere"}}
    study = read_study(plan(datasets=sets, variants={"relu": variant, "more": variant}, ablations=[ablation]))
    for row, dataset in (("salt", "drive"), ("salt", "b"), ("relu", "drive"), ("relu", "b"), ("more", "drive")):
        for seed in (0, 1, 2):
            finish(row, seed, [0.6 + 0.001 * seed] * 6, dataset=dataset)
    text = write_page(study, [], tmp_path / "page").read_text().split("### ReLU")[1]
    assert "| nowhere |" in text
    assert "| elsewhere |" not in text


def test_a_variant_with_one_seed_keeps_no_other_from_a_claim(plan, finish, tmp_path):
    variant = {"base": "sam", "overrides": ["ft.relu=none"], "lr_of": "salt"}
    variants = {"relu": variant, "worse": variant, "once": variant | {"seeds": [0]}}
    ablations = [
        {"title": "ReLU", "rows": {"salt": "core", "relu": "nowhere", "worse": "elsewhere"}},
        {"title": "More", "rows": {"salt": "core", "once": "one seed"}},
    ]
    for seed in (0, 1, 2):
        for row, dice in (("salt", 0.7), ("relu", 0.7005), ("worse", 0.5)):
            finish(row, seed, [dice + 0.001 * seed + 0.01 * image for image in range(6)])
    finish("once", 0, [0.5] * 6)
    study = read_study(plan(variants=variants, ablations=ablations))
    text = write_page(study, [], tmp_path / "page").read_text()
    assert "- core is above elsewhere (+0.200" in text.split("### ReLU")[1].split("### More")[0]
    assert "No order is claimed here." in text.split("### More")[1]
