"""Which runs are found, and what is said of those that cannot be used."""

import json

import pytest

from evaluation.results import read_per_image
from report.gather import gather
from utils.errors import UserError


def test_every_finished_run_below_the_folder_is_read(maker):
    maker.run("salt_256", "DRIVE", dice=(0.5, 0.7), folder="a/b/c")
    maker.run("lora_4", "xray_angio", folder="d")
    gathered = gather(maker.root)
    assert [(run.key.paper, run.column) for run in gathered.runs] == [("salt_256", "DRIVE"), ("lora_4", "XRay-Angio")]
    assert gathered.problems == []
    first = gathered.runs[0]
    assert first.scores("last", "img_size").dice.mean == pytest.approx(0.6)
    assert first.scores("best_val", "native").dice.mean == pytest.approx(0.55)
    assert first.images["last"][("00.png", "Vessel")] == {
        "dice": 0.5, "hd95": 10.0, "dice_native": 0.4, "hd95_native": 20.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda text: text[:40], "cannot be read"),
        (lambda text: "[1, 2]", "is no JSON object"),
        (lambda text: text.replace('"percent"', '"per cent"'), "key 'percent': field required"),
        (lambda text: text.replace('"last"', '"lost"'), "key 'last': field required"),
        (lambda text: json.dumps({**json.loads(text), "last": None}), "key 'last'"),
        (lambda text: text.replace('"mean": 0.75', '"mean": NaN'), "key 'last.img_size.dice.mean'"),
        (lambda text: text.replace('"seed": 0', '"seed": "first"'), "key 'seed'"),
    ],
)
def test_a_damaged_results_file_is_left_out_and_named(maker, spoil, message):
    maker.run("salt_256")
    path = maker.run("lora_4") / "results.json"
    text = path.read_text()
    assert spoil(text) != text
    path.write_text(spoil(text))
    gathered = gather(maker.root)
    assert [run.key.paper for run in gathered.runs] == ["salt_256"]
    assert len(gathered.problems) == 1
    assert gathered.problems[0].startswith(f"{path}: ")
    assert message in gathered.problems[0]
    assert "\n" not in gathered.problems[0]


def test_evaluations_of_the_test_command_are_no_runs(maker):
    folder = maker.run("salt_256")
    results = json.loads((folder / "results.json").read_text())
    results |= {**results.pop("last"), "best_val": None}
    (folder / "model_DRIVE_test").mkdir()
    (folder / "model_DRIVE_test" / "results.json").write_text(json.dumps(results))
    gathered = gather(maker.root)
    assert (len(gathered.runs), gathered.evaluations, gathered.problems) == (1, 1, [])
    assert gathered.left_out() == ["1 results.json written by the test command are no runs and were ignored"]


def test_two_runs_of_one_cell_and_seed_are_both_named_and_both_kept(maker):
    second = maker.run("salt_256", folder="b", dice=[0.1])
    first = maker.run("salt_256", folder="a", dice=[0.9])
    maker.run("salt_256", folder="c", seed=1)
    gathered = gather(maker.root)
    assert [(run.folder, run.key.copy) for run in gathered.runs] == [(first, 0), (second, 1), (maker.root / "c", 0)]
    assert len(gathered.problems) == 1
    assert f"{second}: same method, settings, dataset, seed (0) and fold (0) as {first}" in gathered.problems[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read (No such file"),
        ("weights,image,label,dice\nlast,a.png,V,0.5\n", "no column 'hd95'"),
        (
            "weights,image,label,dice,hd95,dice_native,hd95_native\nlast,a.png,V,0.5,x,1,1\n",
            "line 2: could not convert",
        ),
        ("weights,image,label,dice,hd95,dice_native,hd95_native\nlast,a.png,V,0.5,nan,1,1\n", "'nan' is no finite"),
        ("weights,image,label,dice,hd95,dice_native,hd95_native\nlast,a.png,V,0.5\n", "line 2: None is no finite"),
        ("weights,image,label,dice,hd95,dice_native,hd95_native\n" + 2 * "last,a.png,V,1,1,1,1\n", "a second row of"),
    ],
)
def test_a_damaged_per_image_file_costs_its_tests_not_the_run(maker, content, message):
    path = maker.run("salt_256") / "per_image.csv"
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError) as error:
        read_per_image(path.parent)
    assert message in str(error.value)
    gathered = gather(maker.root)
    assert [run.images for run in gathered.runs] == [{}]
    assert len(gathered.problems) == 1
    assert str(path) in gathered.problems[0]


def test_nothing_found_is_one_line(maker, tmp_path):
    with pytest.raises(UserError, match="no such folder of runs"):
        gather(tmp_path / "absent")
    with pytest.raises(UserError, match="no finished run"):
        gather(tmp_path)
    (maker.run("salt_4") / "results.json").write_text("{")
    with pytest.raises(UserError, match=r"no finished run .*: .*results\.json: cannot be read"):
        gather(tmp_path)
