"""The study's YAML and the sweeps that follow from it."""

import csv
import io
from pathlib import Path

import pytest

from adapters import METHODS
from datasets.split import read_rows
from experiments.sweep_plan import read_plan, sweep_runs
from model import build_model
from networks.strategies import parameter_counts
from study.plan import read_study
from study.sweep_plans import choice_plan, choice_split, final_plan, plan_text, variant_plan
from utils.errors import ConfigError, UserError

ROOT = Path(__file__).resolve().parents[2]


def two_sets(workspace, **of_the_first):
    """Two datasets of the same images; rates are chosen on the first, which trains longer."""
    data = {"data_config": str(workspace.data_config), "validation_images": 0}
    return {"drive": data | {"validation_images": 1, "overrides": ["training.num_epochs=4"]} | of_the_first, "b": data}


def test_each_dataset_has_its_own_overrides_and_rates_are_chosen_where_images_are_set_aside(plan, workspace):
    study = read_study(plan(datasets=two_sets(workspace, choice_overrides=["training.num_epochs=3"])))
    found = {run.name: run.config() for run in sweep_runs(final_plan(study, {"salt": 1e-3}, [0]))}
    assert {name: config.training.num_epochs for name, config in found.items()} == {
        "none/drive/0": 4, "salt/drive/0": 4, "none/b/0": 2, "salt/b/0": 2,
    }  # fmt: skip
    study.split_file("drive").parent.mkdir(parents=True)
    study.split_file("drive").write_text(choice_split(study, "drive"))
    [choosing] = sweep_runs(choice_plan(study, {"salt": [1e-3]}))
    assert (choosing.name, choosing.config().training.num_epochs) == ("salt_lr0.001/drive/0", 3)


def test_the_choice_sees_training_images_alone(study, workspace):
    rows = list(csv.DictReader(io.StringIO(choice_split(study, "drive"))))
    train = {row.image for row in read_rows(workspace.data / "data_split.csv") if row.split == "train"}
    assert {row["imgs"] for row in rows} == train
    assert [row["split"] for row in rows].count("test") == study.datasets["drive"].validation_images
    assert {row["split"] for row in rows} == {"train", "test"}
    assert choice_split(study, "drive") == choice_split(study, "drive")


def test_at_least_one_image_is_left_to_train_on(plan, workspace):
    with pytest.raises(UserError, match="4 training images, of which 4 cannot be set aside"):
        choice_split(read_study(plan(datasets=two_sets(workspace, validation_images=4))), "drive")


def test_each_rate_tried_is_a_run_on_the_split_of_the_choice(study):
    study.split_file("drive").parent.mkdir(parents=True)
    study.split_file("drive").write_text(choice_split(study, "drive"))
    found = sweep_runs(choice_plan(study, {"lora": [1e-3, 3e-3], "salt": [1e-4]}))
    assert [run.name for run in found] == ["lora_lr0.001/drive/0", "lora_lr0.003/drive/0", "salt_lr0.0001/drive/0"]
    config = found[1].config()
    assert (config.strategy, config.training.lr, config.training.num_epochs, config.ft.r_lora) == ("lora", 3e-3, 1, 1)
    assert config.data.data_split_csv == study.split_file("drive")
    assert config.data.name == "drive-choice"
    assert config.data.val == "test"


def test_the_runs_that_count_take_the_chosen_rates(study):
    chosen = {"lora": 1e-2, "salt": 3e-4}
    found = {run.name: run.config() for run in sweep_runs(final_plan(study, chosen, [0, 7]))}
    assert set(found) == {f"{row}/drive/{seed}" for row in ("none", "lora", "salt") for seed in (0, 7)}
    assert [found[f"{row}/drive/7"].training.lr for row in ("lora", "salt")] == [1e-2, 3e-4]
    assert found["none/drive/0"].strategy == "none"
    assert found["salt/drive/7"].seed == 7
    [variant] = sweep_runs(variant_plan(study, chosen, [1]))
    config = variant.config()
    assert (config.training.lr, config.ft.relu, config.strategy) == (3e-4, "none", "salt")
    assert variant.folder.path == study.output / "final" / "relu" / "drive" / "1"


def test_a_variant_may_have_fewer_seeds_than_the_table(plan):
    variants = {"relu": {"base": "sam", "overrides": ["ft.relu=none"], "lr_of": "salt", "seeds": [0]}}
    study = read_study(plan(seeds=[0, 1], variants=variants))
    assert study.expected_runs["relu"] == [("drive", 0)]
    assert study.expected_runs["salt"] == [("drive", 0), ("drive", 1)]
    assert [run.seed for run in sweep_runs(variant_plan(study, {"salt": 1e-3}, study.seeds))] == [0]
    assert [run.seed for run in sweep_runs(variant_plan(study, {"salt": 1e-3}, [2, 3]))] == [2, 3]


def test_rows_whose_rate_is_not_chosen_yet_are_left_out(study):
    assert list(final_plan(study, {"lora": 1e-3}, [0]).rows) == ["none", "lora"]
    assert list(final_plan(study, {}, [0]).rows) == ["none"]
    assert variant_plan(study, {"lora": 1e-3}, [0]) is None


def test_a_plan_is_what_the_sweep_reads(study, tmp_path):
    plan = final_plan(study, {"lora": 1e-5, "salt": 1e-4}, [0, 1])
    path = tmp_path / "plan.yaml"
    path.write_text(plan_text(plan))
    assert read_plan(path) == plan


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rates": [1e-3, 3e-4, 3e-3]}, "learning_rates must rise"),
        ({"first_rates": [3e-4, 3e-3]}, "first_rates must be neighbours"),
        ({"first_rates": [2e-3]}, "first_rates must be neighbours"),
        ({"variants": {"relu": {"base": "sam", "lr_of": "none"}}}, "variants.relu.lr_of must name a trained row"),
        ({"variants": {"salt": {"base": "sam", "lr_of": "salt"}}}, "row salt is in a family and in variants"),
        ({"variants": {"relu": {"base": "sam2", "lr_of": "salt"}}}, "row relu: no base sam2; there are sam"),
        ({"ablations": [{"title": "R", "rows": {"salt": "a", "typo": "b"}}]}, "ablation 'R': no row typo"),
        (
            {"datasets": {"a": {"data_config": "a.yaml", "validation_images": 0}}},
            "one of them must have validation_images",
        ),
        (
            {"variants": {"r": {"base": "sam", "lr_of": "salt", "datasets": ["b"]}}},
            "row r: no dataset b; there are drive",
        ),
        (
            {"variants": {"r": {"base": "sam", "lr_of": "salt", "seeds": [9]}}},
            "row r: no seed 9; there are 0",
        ),
        ({"cross_set": ["typo"]}, "cross_set: no row typo"),
        ({"ablation": []}, "unknown key ablation; did you mean ablations"),
    ],
)
def test_a_wrong_plan_is_refused(plan, changes, message):
    with pytest.raises(ConfigError, match=message):
        read_study(plan(**changes))


def configs_of(study):
    """The config of each row's and variant's run on each dataset, with the first seed and one learning rate."""
    chosen = dict.fromkeys(study.rows, 1e-3)
    plans = [make(study, chosen, study.seeds[:1]) for make in (final_plan, variant_plan)]
    return {(run.row, run.dataset): run.config() for plan in plans if plan for run in sweep_runs(plan)}


def test_every_row_of_the_nano_table_sees_as_many_pixels_of_a_set():
    study = read_study(ROOT / "configs" / "table1" / "nano.yaml")
    configs = configs_of(study)
    assert set(configs) >= {(row, dataset) for row in study.rows for dataset in study.datasets}
    for (row, dataset), config in configs.items():
        pixels, usual = (one.training.num_epochs * one.sam.img_size**2 for one in (config, configs["salt_32", dataset]))
        assert 0.85 <= pixels / usual <= 1, (row, dataset)
    assert {row for (row, _), config in configs.items() if config.training.batch_size != 1} == {"unet_recipe"}
    heads = {row: config.sam.mask_head for (row, _), config in configs.items()}
    assert {row for row, head in heads.items() if head == "detail"} == {
        *(row for row in study.rows if row.endswith("_detail")),
        *(row for row in study.variants if row.startswith("head_") or row.endswith("_detail")),
    }


def test_the_variants_of_the_nano_table_differ_in_what_their_title_names():
    study = read_study(ROOT / "configs" / "table1" / "nano.yaml")
    configs = configs_of(study)
    free = {
        "The detail head beside each method": {
            "strategy",
            "ft",
            "arch",
            "pretrained_path",
            "prompts",
            "training",
            "sam",
        },
        "Ranks of SALT": {"ft"},
        "Start of X and Y": {"ft"},
        "Where ReLU acts": {"ft"},
        "Regularizer": {"training.reg_multiplier"},
        "Loss, SAM's own masks": {"training.loss"},
        "Loss, detail head": {"training.loss"},
    }
    assert list(free) == [ablation.title for ablation in study.ablations]
    for ablation in study.ablations:
        first, *others = (configs[row, "drive"].model_dump() for row in ablation.rows)
        for other in others:
            differences = {
                key if key in free[ablation.title] else f"{key}.{inner}"
                for key in first
                for inner in (first[key] if isinstance(first[key], dict) else [""])
                if (first[key][inner] != other[key][inner] if inner else first[key] != other[key])
            }
            assert differences <= free[ablation.title], ablation.title


def test_the_adapters_of_the_nano_study_train_as_many_parameters():
    study = read_study(ROOT / "configs" / "table1" / "nano" / "adapters.yaml")
    configs = configs_of(study)
    methods = {config.strategy for config in configs.values()}
    assert methods == set(METHODS)
    for family, budget in zip(study.families.values(), (130_000, 290_000), strict=True):
        for row in set(family) - {"svd", "ssf", "salt_prune"}:  # these two have one size; prune ends at its budget
            trained = parameter_counts(build_model(configs[row, "drive"]))["trainable"]
            assert trained == pytest.approx(budget, rel=0.06), row
    prune = configs["salt_prune", "drive"].ft
    total = parameter_counts(build_model(configs["salt", "drive"]))["total"]
    assert prune.rank_budget * total == pytest.approx(130_000, rel=0.06)
