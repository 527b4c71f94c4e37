"""Our figures on DRIVE, checked by mlscorecheck, which knows how many pixels each image and its field of view have."""

import json
from pathlib import Path

import pytest

from evaluation.results import read_per_image
from main import main

ROOT = Path(__file__).resolve().parents[1]
# The real set may lie beside the repository; it is never part of it.
REAL = ROOT.parent / "shared" / "data" / "DRIVE"
NAMES = {"acc": "accuracy", "sens": "sensitivity", "spec": "specificity"}
IMAGES = [f"{number:02d}" for number in range(1, 7)]
EPS = 1e-4  # four decimals, as papers print them

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:pulp.*")
retina = pytest.importorskip("mlscorecheck.check.bundles.retina", reason="mlscorecheck is not installed")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a nano SAM's scores on the first of DRIVE's official test images."""
    if not REAL.is_dir():
        pytest.skip("the real DRIVE isn't here")
    folder = tmp_path_factory.mktemp("drive")
    assert (
        main(["prepare", "drive", "--source", str(REAL), "--split", "official", "--output", str(folder / "set")]) == 0
    )
    rows = (folder / "set" / "data_split.csv").read_text().splitlines()
    kept = [row for row in rows if not row.endswith(",test") or row[:2] in IMAGES]
    (folder / "set" / "data_split.csv").write_text("\n".join(kept) + "\n")
    (folder / "data.yaml").write_text("data: {root_path: set, label_list: [0, 1], label_names: [Background, Vessel]}\n")
    (folder / "model.yaml").write_text(
        "sam: {img_size: 128, sam_type: nano}\nprompts: {text_encoder: learned}\n"
        "evaluation: {metrics: [accuracy, sensitivity, specificity]}\n"
    )
    arguments = ["--data_config", str(folder / "data.yaml"), "--model_config", str(folder / "model.yaml")]
    arguments += ["--pretrained_path", str(ROOT / "weights" / "nano_sam.safetensors"), "--device", "cpu"]
    save = folder / "run" / "model.safetensors"
    assert main([*arguments, "--save_path", str(save), "--training_strategy", "none"]) == 0
    return folder / "run"


def means(run, region):
    """The means over the images, rounded as in a paper."""
    native = json.loads((run / "results.json").read_text())["last"]["native"]
    others = (native if region == "all" else native["fov"])["others"]
    return {short: round(others[name]["mean"], 4) for short, name in NAMES.items()}


def inconsistent(scores):
    """{"all": ..., "fov": ...}: whether means over images of such a region can not have these values."""
    found = retina.check_drive_vessel_aggregated(imageset=IMAGES, annotator=1, scores=scores, eps=EPS, verbosity=0)
    return {region: found["inconsistency"][f"inconsistency_{region}_mos"] for region in ("all", "fov")}


@pytest.mark.parametrize("region", ["all", "fov"])
def test_the_means_are_consistent_and_altered_ones_are_not(run, region):
    scores = means(run, region)
    assert inconsistent(scores)[region] is False
    for short, change in (("acc", 0.01), ("acc", -0.01), ("spec", 0.01), ("sens", 0.1)):
        altered = scores | {short: scores[short] + change}
        assert inconsistent(altered) == {"all": True, "fov": True}, (short, change)


@pytest.mark.parametrize(("region", "suffix"), [("all", ""), ("fov", "_fov")])
def test_the_figures_of_each_image_fit_their_region_alone(run, region, suffix):
    images = read_per_image(run)["last"]
    assert len(images) == len(IMAGES)
    other = {"all": "fov", "fov": "all"}[region]
    for (name, _), values in images.items():
        scores = {short: round(values[f"{column}_native{suffix}"], 4) for short, column in NAMES.items()}
        identifier = name[:2]
        for shown, changed in ((scores, False), (scores | {"acc": scores["acc"] + 0.002}, True)):
            found = retina.check_drive_vessel_image(image_identifier=identifier, annotator=1, scores=shown, eps=EPS)
            assert found["inconsistency"][f"inconsistency_{region}"] is changed, name
            assert found["inconsistency"][f"inconsistency_{other}"] is True, name
