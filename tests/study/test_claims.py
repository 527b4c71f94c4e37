"""Which orders are claimed: each of the rule's conditions is needed."""

from dataclasses import replace

import numpy as np
import pytest

from study.claims import Claim, check_claims, find_claims, seed_noise
from study.csv_files import checks_csv, claims_csv, read_checks_csv, read_claims_csv
from study.plan import read_study
from study.results import read_results

IMAGE = np.array([0.00, 0.01, 0.02, 0.03, 0.04, 0.05])  # what makes one image harder than another
NOISE = {"none": [0, 0, 0], "lora": [0.001, -0.001, 0], "salt": [0, 0.001, -0.001]}


@pytest.fixture
def results(study, finish):
    """results({row: mean Dice}, {row: noise a seed}, {row: more an image}) -> the rows' results."""

    def make(means, noise=NOISE, images=None, seeds=(0, 1, 2)):
        for row, mean in means.items():
            for seed, shift in zip(seeds, noise[row], strict=False):
                finish(row, seed, list(mean + shift + IMAGE + (images or {}).get(row, 0)))
        return list(read_results(study, seeds).values())

    return make


def claimed(found):
    return {(claim.better, claim.worse) for claim in found}


def test_noise_leaves_out_what_all_rows_share_in_a_seed():
    common = np.array([0.1, -0.2, 0.1])
    rows = [np.repeat((mean + common)[:, None], 6, axis=1) for mean in (0.5, 0.6, 0.7)]
    assert seed_noise(rows) == (pytest.approx(0, abs=1e-12), 4)
    rows[0] = rows[0] + np.array([[0.03], [-0.03], [0.0]])
    # residuals of [+.03, -.03, 0] in one of three rows: 2/3 of it there, -1/3 of it in the two others
    expected = ((0.03**2 * 2) * (4 / 9 + 1 / 9 + 1 / 9) / 4) ** 0.5
    assert seed_noise(rows) == (pytest.approx(expected), 4)


def test_clear_differences_are_claimed_with_an_interval_for_a_further_seed(results):
    found = find_claims("Nano", results({"none": 0.1, "lora": 0.6, "salt": 0.7}))
    assert claimed(found) == {("salt", "lora"), ("salt", "none"), ("lora", "none")}
    salt = next(claim for claim in found if (claim.better, claim.worse) == ("salt", "lora"))
    assert (salt.group, salt.difference, salt.p) == ("Nano", pytest.approx(0.1), pytest.approx(2 / 64))
    own = np.std([-0.001, 0.002, -0.001], ddof=1)  # of two trained rows, the pooled one too
    half = 9.924843201 * own * (4 / 3) ** 0.5  # Student's t, 99.5%, (2 - 1) (3 - 1) degrees of freedom
    assert (salt.low, salt.high) == (pytest.approx(0.1 - half), pytest.approx(0.1 + half))


def test_a_difference_within_the_noise_of_seeds_is_not_claimed(results):
    found = find_claims("Nano", results({"none": 0.1, "lora": 0.695, "salt": 0.7}))
    assert claimed(found) == {("salt", "none"), ("lora", "none")}


def test_other_trained_rows_noise_counts(results):
    """lora and salt agree to a thousandth from seed to seed, by luck as the third row shows."""
    noise = {"none": [0.05, -0.05, 0], "lora": [0, 0, 0], "salt": [0, 0, 0]}
    rows = results({"none": 0.1, "lora": 0.66, "salt": 0.7}, noise)
    assert ("salt", "lora") not in claimed(find_claims("Nano", [replace(row, trained=True) for row in rows]))


def test_an_untrained_rows_noise_is_that_of_its_pairs_alone(results):
    noise = {"none": [0.05, -0.05, 0], "lora": [0, 0, 0], "salt": [0, 0, 0]}
    found = find_claims("Nano", results({"none": 0.1, "lora": 0.66, "salt": 0.75}, noise))
    assert claimed(found) == {("salt", "lora"), ("salt", "none")}
    salt = next(claim for claim in found if claim.worse == "none")
    half = 9.924843201 * 0.05 * (4 / 3) ** 0.5  # Student's t, 99.5%, 3 - 1 degrees of freedom: .57 of the .56 of lora
    assert (salt.low, salt.high) == (pytest.approx(0.65 - half), pytest.approx(0.65 + half))


def test_one_image_that_says_otherwise_is_enough(results):
    images = {"salt": np.array([0, 0, 0, 0, 0, -0.2])}
    found = find_claims("Nano", results({"none": 0.1, "lora": 0.6, "salt": 0.7}, images=images))
    assert claimed(found) == {("salt", "none"), ("lora", "none")}


def test_one_seed_supports_nothing(results):
    assert find_claims("Nano", results({"none": 0.1, "lora": 0.6}, seeds=[0])) == []
    assert find_claims("Nano", []) == []


def test_seeds_that_not_all_rows_have_are_left_out(results, finish, study):
    results({"none": 0.1, "lora": 0.6, "salt": 0.7})
    finish("lora", 3, list(0.95 + IMAGE))
    both = read_results(study, [0, 1, 2, 3])
    assert both["lora"].seeds == [0, 1, 2, 3]
    found = find_claims("Nano", list(both.values()))
    assert next(c for c in found if c.worse == "lora").difference == pytest.approx(0.1)


def test_named_pairs_alone_are_looked_at(results):
    found = find_claims("Nano", results({"none": 0.1, "lora": 0.6, "salt": 0.7}), [("lora", "salt")])
    assert claimed(found) == {("salt", "lora")}


def test_claims_are_checked_with_another_seed(results, finish, study, tmp_path):
    claims = find_claims("Nano", results({"none": 0.1, "lora": 0.6, "salt": 0.7}))
    path = tmp_path / "claims.csv"
    path.write_text(claims_csv(claims))
    assert claimed(read_claims_csv(path)) == claimed(claims)
    for row, mean in (("none", 0.1), ("lora", 0.6), ("salt", 0.55)):
        finish(row, 7, [mean] * 6)
    checked = check_claims(study, read_claims_csv(path), read_results(study, [7]))
    found = {(c.better, c.worse): (seed, difference) for c, seed, difference in checked}
    assert found[("salt", "lora")] == (7, pytest.approx(-0.05))
    assert found[("lora", "none")] == (7, pytest.approx(0.5))
    other = tmp_path / "other.csv"
    other.write_text(checks_csv(checked))
    assert [(c.better, s, pytest.approx(d)) for c, s, d in read_checks_csv(other, claims)] == [
        (c.better, s, d) for c, s, d in checked
    ]
    assert read_checks_csv(other, claims[1:]) == [], "they are of other claims"
    assert read_checks_csv(tmp_path / "missing.csv", claims) == []


def test_a_missing_run_does_not_hold(results, finish, study):
    claims = find_claims("Nano", results({"lora": 0.6, "salt": 0.7}))
    finish("lora", 7, [0.6] * 6)
    assert [(seed, found) for _, seed, found in check_claims(study, claims, read_results(study, [7]))] == [(7, None)]


def test_a_claim_is_checked_on_the_datasets_that_it_was_made_on(plan, workspace, finish):
    """Those that all rows of its ablation are run on, although salt and lora have another one."""
    sets = {name: {"data_config": str(workspace.data_config), "validation_images": 1} for name in ("drive", "b")}
    variants = {"relu": {"base": "sam", "overrides": ["ft.relu=none"], "lr_of": "salt", "datasets": ["drive"]}}
    ablation = {"title": "ReLU", "rows": {"salt": "core", "relu": "nowhere", "lora": "LoRA"}}
    study = read_study(plan(datasets=sets, variants=variants, ablations=[ablation]))
    for row, drive, other in (("salt", 0.7, 0.1), ("lora", 0.5, 0.9), ("relu", 0.6, None)):
        finish(row, 3, [drive] * 6, dataset="drive")
        if other:
            finish(row, 3, [other] * 6, dataset="b")
    claims = [Claim(group, "salt", "lora", 0.1, 0.1, 0.1, 0.03) for group in ("ReLU", "Nano")]
    claims.append(replace(claims[0], worse="relu"))
    checked = check_claims(study, claims, read_results(study, [3]))
    assert [difference for _, _, difference in checked] == pytest.approx([0.2, -0.3, 0.1])
