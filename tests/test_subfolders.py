"""Two images of one name in different subfolders stay apart in all that an evaluation writes."""

import csv

from main import main


def test_scores_and_overlays_of_two_images_of_one_name(workspace):
    rows = (workspace.data / "data_split.csv").read_text()
    for folder, name in (("left", "test0.png"), ("right", "test1.png")):
        for kind in ("images", "masks"):
            (workspace.data / kind / folder).mkdir()
            (workspace.data / kind / name).rename(workspace.data / kind / folder / "eye.png")
        rows = rows.replace(name, f"{folder}/eye.png")
    (workspace.data / "data_split.csv").write_text(rows)
    assert main(workspace.train_arguments("run/model.safetensors", "--training_strategy", "none")) == 0
    run = workspace.folder / "run"
    with (run / "per_image.csv").open() as file:
        assert [row["image"] for row in csv.DictReader(file)] == ["left/eye.png", "right/eye.png"]
    overlays = run / "overlays"
    found = {path.relative_to(overlays).as_posix() for path in overlays.rglob("*.png")}
    assert found == {"left/eye_Bar.png", "right/eye_Bar.png"}
