"""Rows by what differs: keys of the config on one dataset, a plan's names, copies; nothing finished is left out."""

import pytest
import yaml

from report.gather import gather
from report.markdown import to_markdown
from report.rows import labels
from report.settings import differences
from report.table import build_table


def add_config(folder, **keys):
    """Gives a run a config.yaml with these keys of the section training, and others by a dotted name."""
    content = {"training": {}}
    for key, value in keys.items():
        section, _, name = key.rpartition("__")
        content.setdefault(section or "training", {})[name] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    return folder


def label_of_each(maker):
    """{folder's name: label} of all runs, in one section."""
    gathered = gather(maker.root)
    names = labels(list(dict.fromkeys(run.key for run in gathered.runs)))
    return {run.folder.name: names[run.key] for run in gathered.runs}


def test_runs_that_differ_in_a_learning_rate_or_a_loss_have_rows_of_their_own(maker):
    for name, keys in {"a": {"lr": 0.01}, "b": {"lr": 0.0015}, "c": {"lr": 0.01, "loss": "dice"}}.items():
        for seed in (0, 1):
            add_config(maker.run("salt_256", folder=f"{name}{seed}", seed=seed), **keys)
    found = label_of_each(maker)
    assert {found["a0"], found["a1"]} == {"SALT 256, loss focal+dice, lr 1e-2"}
    assert found["b0"] == "SALT 256, loss focal+dice, lr 1.5e-3"
    assert found["c1"] == "SALT 256, loss dice, lr 1e-2"
    assert gather(maker.root).problems == []
    table = build_table(gather(maker.root).runs, "last", "img_size")
    assert [len(row.runs) for row in table.sections[0].rows if row.runs] == [2, 2, 2]


def test_what_differs_between_datasets_alone_tells_nothing_apart(maker):
    """Each dataset has its own augmentation; places of files and ways of computing are no settings."""
    add_config(maker.run("salt_256", "DRIVE"), data_transforms__use_rotation=True, lr=0.01)
    add_config(maker.run("salt_256", "ROSE"), data_transforms__use_rotation=False, lr=0.01, compile=True)
    add_config(maker.run("salt_256", "DRIVE", seed=1), data_transforms__use_rotation=True, lr=0.01, deterministic=True)
    assert set(label_of_each(maker).values()) == {"SALT 256"}


def test_a_new_key_does_not_tell_an_older_run_apart(maker):
    add_config(maker.run("salt_256"))
    add_config(maker.run("salt_256", seed=1), lr=1e-4)  # the default
    assert set(label_of_each(maker).values()) == {"SALT 256"}


def test_a_plans_names_are_the_rows_and_notes_say_what_they_are(maker):
    for name, keys in {
        "lr_3e-3": {"lr": 0.003},
        "lr_1e-2": {"lr": 0.01},
        "dice_only": {"lr": 0.01, "loss": "dice"},
    }.items():
        for seed in (0, 1):
            folder = add_config(maker.run("salt_256", folder=f"{name}/{seed}", seed=seed, img_size=256), **keys)
            (folder / "row.txt").write_text(f"{name}\n")
    gathered = gather(maker.root)
    table = build_table(gathered.runs, "last", "img_size")
    assert sorted(row.label for row in table.sections[0].rows) == ["dice_only", "lr_1e-2", "lr_3e-3"]
    assert "lr\\_1e-2: SAM ViT-B, SALT 256 (top 410, neck 256), loss focal+dice, lr 1e-2" in to_markdown(table)


def test_the_papers_row_keeps_its_label_and_another_plans_row_its_name(maker):
    for name in ("salt_256", "mine"):
        (maker.run("salt_256", folder=name) / "row.txt").write_text(f"{name}\n")
    assert label_of_each(maker) == {"salt_256": "SALT 256", "mine": "mine"}
    (row,) = [
        row for row in build_table(gather(maker.root).runs, "last", "img_size").sections[0].rows if row.label == "mine"
    ]
    assert row.paper.name == "salt_256"


def test_a_plans_row_without_training_has_no_best_epoch_and_no_note_of_it(maker):
    for row, name in (("sam_text", "before"), ("salt_256", "mine")):
        (maker.run(row, folder=name) / "row.txt").write_text(f"{name}\n")
    text = to_markdown(build_table(gather(maker.root).runs, "best_val", "img_size"))
    assert "- mine: SALT 256\n" in text
    assert "- before: SAM" not in text


def test_a_plans_row_that_was_changed_midway_is_two_rows(maker):
    for seed, lr in ((0, 0.01), (1, 0.02)):
        (add_config(maker.run("salt_256", folder=f"r{seed}", seed=seed), lr=lr) / "row.txt").write_text("mine\n")
    assert label_of_each(maker) == {"r0": "mine, lr 1e-2", "r1": "mine, lr 2e-2"}


def test_a_damaged_config_is_named_and_its_run_kept(maker):
    add_config(maker.run("salt_256", folder="a"), lr=0.01)
    add_config(maker.run("salt_256", folder="b"), lr=0.02)
    (maker.run("salt_256", folder="c") / "config.yaml").write_text("training: {lr")
    assert label_of_each(maker)["c"] == "SALT 256, settings unknown"
    [problem] = gather(maker.root).problems
    assert problem.startswith(str(maker.root / "c" / "config.yaml"))
    assert "the settings of this run are unknown" in problem


def test_unfinished_runs_are_counted(maker):
    maker.run("salt_256")
    (maker.root / "begun").mkdir()
    add_config(maker.root / "begun")
    assert gather(maker.root).left_out() == [f"1 runs are not finished, such as {maker.root / 'begun'}"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01, "1e-2"), (0.00015, "1.5e-4"), (0.5, "0.5"), (3, "3"), (True, "true"), ([1, 2], "1, 2"), ("dice", "dice")],
)
def test_values_in_words(value, text):
    assert differences({0: {"training.x": value}, 1: {}}) == {0: f"x {text}", 1: "x not set"}


def test_keys_of_one_name_are_told_apart():
    assert (
        differences({0: {"sam.type": 1, "ft.type": 2}, 1: {"sam.type": 3, "ft.type": 4}})[0] == "ft.type 2, sam.type 1"
    )
