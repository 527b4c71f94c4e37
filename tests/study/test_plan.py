"""The study's YAML and the sweeps that follow from it."""

import csv
import io
from pathlib import Path

import pytest

from datasets.split import read_rows
from experiments.sweep_plan import read_plan, sweep_runs
from study.plan import choice_plan, choice_row, choice_split, final_plan, plan_text, read_study, variant_plan
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
        ({"cross_set": ["typo"]}, "cross_set: no row typo"),
        ({"ablation": []}, "unknown key ablation; did you mean ablations"),
    ],
)
def test_a_wrong_plan_is_refused(plan, changes, message):
    with pytest.raises(ConfigError, match=message):
        read_study(plan(**changes))


def test_the_studys_plan_holds_every_method_at_equal_budget():
    study = read_study(ROOT / "configs" / "study" / "study.yaml")
    chosen = dict.fromkeys(study.rows, 1e-3)
    plans = [final_plan(study, chosen, study.seeds), variant_plan(study, chosen, study.seeds)]
    configs = {run.row: run.config() for plan in plans for run in sweep_runs(plan)}
    assert (
        len({(c.training.num_epochs, c.training.batch_size, c.training.schedule_step) for c in configs.values()}) == 1
    )
    strategies = ["none", "decoder", "biastuning", "svd", "svdbiastuning", "lora", "lora", "salt", "salt", "full"]
    for family, more in zip(study.families.values(), (["full"], []), strict=True):
        assert [configs[name].strategy for name in family] == strategies + more
    assert len(study.seeds) == 3
    assert {configs[row].training.reg_multiplier for row in study.ablations[3].rows} == {0.0, 0.01, 0.1}
    assert {configs[row].ft.relu for row in study.ablations[2].rows} == {"core", "diagonal", "none"}
    assert {configs[row].ft.salt_init for row in study.ablations[1].rows} == {"identity", "normal"}
    assert {configs[row].sam.encoder_attention for row in study.ablations[4].rows} == {"official", "released"}
    assert {choice_row("unet", rate) for rate in study.first_rates} == {"unet_lr0.001", "unet_lr0.003", "unet_lr0.01"}
    for ablation in study.ablations:  # variants differ in what is named alone
        first = configs[next(iter(ablation.rows))]
        for row in ablation.rows:
            same = {"ft": first.ft, "sam": first.sam, "training": first.training}
            assert configs[row].model_copy(update=same) == first


def test_the_plan_of_table_1_on_nano_models_shows_as_many_pixels_to_every_row():
    study = read_study(ROOT / "configs" / "table1" / "nano.yaml")
    chosen = dict.fromkeys(study.rows, 1e-3)
    runs = [
        run
        for make in (final_plan, variant_plan)
        for run in sweep_runs(make(study, chosen, study.seeds))
        if not run.seed
    ]
    train_images = {"drive": 14, "rossa": 22, "xray": 56, "dias": 20}
    configs = {(run.row, run.dataset): run.config() for run in runs}
    pixels = {
        key: config.training.num_epochs * train_images[key[1]] * config.sam.img_size**2 / 384**2
        for key, config in configs.items()
    }
    assert set(pixels) >= {(row, dataset) for row in study.rows for dataset in train_images}
    assert all(abs(count - 420) <= 60 for count in pixels.values())
    assert {row for (row, _), config in configs.items() if config.training.batch_size != 1} == {"unet_recipe"}
    heads = {row: config.sam.mask_head for (row, _), config in configs.items()}
    assert {row for row, head in heads.items() if head == "detail"} == {
        *(row for row in study.rows if row.endswith("_detail")),
        *(row for row in study.variants if row.startswith("head_") or row.endswith("_detail")),
    }
    first = configs["salt_32", "drive"]
    for row in study.ablations[1].rows:  # differ in the loss alone
        same = {"training": first.training.model_copy(update={"loss": configs[row, "drive"].training.loss})}
        assert first.model_copy(update=same) == configs[row, "drive"]
