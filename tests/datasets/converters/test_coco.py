"""COCO files of a user: polygons and run-length codes of several categories, splits by name."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_masks

from datasets.io import read_image, read_mask
from datasets.preparation.prepare import prepare
from datasets.split import read_rows
from utils.config import load_config
from utils.errors import ConfigError, UserError

SIZE = (20, 30)


def rectangle(left, top, right, bottom):
    return [left, top, right, top, right, bottom, left, bottom]


def content(names, annotations, categories=({"id": 3, "name": "vein"}, {"id": 1, "name": "artery"})):
    images = [{"id": i, "file_name": name, "height": SIZE[0], "width": SIZE[1]} for i, name in enumerate(names, 10)]
    numbered = [{"id": i, **annotation} for i, annotation in enumerate(annotations)]
    return {"images": images, "annotations": numbered, "categories": [*categories, {"id": 0, "name": "unused"}]}


@pytest.fixture
def mine(tmp_path):
    """Six images in nested folders; image 10 has two labels that overlap, image 11 a code, image 12 nothing."""
    rng = np.random.default_rng(0)
    names = [f"photos/day{i % 2}/{i}.png" for i in range(6)]
    for name in names:
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(tmp_path / "mine" / name)
    code = coco_masks.encode(np.asfortranarray(np.eye(*SIZE, dtype=np.uint8)))
    plain = {"size": list(SIZE), "counts": [0, 5, 595]}
    annotations = [
        {"image_id": 10, "category_id": 1, "segmentation": [rectangle(2, 3, 12, 9)]},
        {"image_id": 10, "category_id": 3, "segmentation": [rectangle(8, 3, 20, 9)]},
        {"image_id": 11, "category_id": 3, "segmentation": {"size": list(SIZE), "counts": code["counts"].decode()}},
        {"image_id": 13, "category_id": 1, "segmentation": plain},
        {"image_id": 14, "category_id": 1, "segmentation": [rectangle(0, 0, 4, 4)], "iscrowd": 0},
        {"image_id": 15, "category_id": 1, "segmentation": [rectangle(0, 0, 4, 4)]},
    ]
    write(tmp_path / "mine", content(names, annotations))
    return tmp_path / "mine"


def write(folder, value, name="annotations.json"):
    (folder / name).write_text(json.dumps(value))


def test_categories_become_labels(mine, tmp_path):
    summary = prepare("coco", mine, tmp_path / "out")
    assert summary["splits"] == {"train": 4, "val": 0, "test": 2}
    assert summary["images_without_annotation"] == 1
    assert summary["lines"][-1] == "labels: 1 artery, 2 vein"
    masks = [read_mask(tmp_path / f"out/masks/{i}.png") for i in range(6)]
    expected = np.zeros(SIZE, np.uint8)
    expected[3:9, 2:12] = 1
    expected[3:9, 8:20] = 2  # the later annotation
    np.testing.assert_array_equal(masks[0], expected)
    np.testing.assert_array_equal(masks[1], 2 * np.eye(*SIZE))
    assert not masks[2].any()
    assert np.argwhere(masks[3]).tolist() == [[i, 0] for i in range(5)]  # codes run down the columns
    np.testing.assert_array_equal(read_image(tmp_path / "out/images/1.png"), read_image(mine / "photos/day1/1.png"))
    data = load_config(None, tmp_path / "out" / "data.yaml").require_data()
    assert (data.label_list, data.label_names) == ([0, 1, 2], ["Background", "artery", "vein"])
    (tmp_path / "out").rename(tmp_path / "moved")
    assert load_config(None, tmp_path / "moved" / "data.yaml").require_data().root_path == tmp_path / "moved"


def test_images_and_files_in_different_places(mine, tmp_path):
    (mine / "annotations.json").rename(tmp_path / "a.json")
    summary = prepare("coco", None, tmp_path / "out", images=mine / "photos", annotations=[tmp_path / "a.json"])
    assert summary["images"] == 6
    assert summary["options"]["annotations"] == [str(tmp_path / "a.json")]
    with pytest.raises(ConfigError, match="needs --source DIR, or --images DIR and --annotations FILE"):
        prepare("coco", None, tmp_path / "x", images=mine)
    with pytest.raises(ConfigError, match="needs --source DIR, or"):
        prepare("coco", mine, tmp_path / "x", images=mine, annotations=[tmp_path / "a.json"])


def test_files_named_for_splits_decide(mine, tmp_path, rows):
    """As Roboflow exports: train/, valid/ and test/ with a file each, images of the same names in each."""
    source = tmp_path / "export"
    for split in ("train", "valid", "test"):
        (source / split).mkdir(parents=True)
        for name in ("a.png", "b.png"):
            Image.fromarray(np.full(SIZE, len(split), np.uint8)).save(source / split / name)
        drawn = [{"image_id": 10, "category_id": 1, "segmentation": [rectangle(1, 1, 5, 5)]}]
        write(source / split, content(["a.png", "b.png"], drawn), "_annotations.coco.json")
    prepare("coco", source, tmp_path / "out")
    found = {row["imgs"]: row["split"] for row in rows(tmp_path / "out")}
    assert found == {
        f"{f}_{n}.png": s for f, s in (("train", "train"), ("valid", "val"), ("test", "test")) for n in "ab"
    }
    (source / "test" / "_annotations.coco.json").unlink()
    assert prepare("coco", source, tmp_path / "drawn")["splits"] == {"train": 3, "val": 0, "test": 1}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: c.pop("images"), r"no COCO file, a JSON with images, annotations, categories, in .*mine, it holds"),
        (lambda c: c["annotations"].clear(), r"annotations\.json: no annotations; export the drawn areas"),
        (lambda c: c["images"][0].update(file_name="x.png"), r"lists the image x\.png, which is not below .*mine"),
        (lambda c: c["images"][0].update(width=31), r"0\.png: 30 x 20 pixels, but its COCO file says 31 x 20"),
        (lambda c: c["annotations"][0].update(category_id=9), "annotations of category 9, which is not listed"),
        (lambda c: c["annotations"][0].update(image_id=9), "annotation 0 is of image 9, which is not listed"),
        (lambda c: c["annotations"][0].pop("segmentation"), "not a COCO file of images, categories and annotations"),
        (lambda c: c["annotations"][0].update(segmentation=[[1, 2, 3]]), "a polygon of annotation 0 is not"),
        (
            lambda c: c["annotations"][2].update(segmentation={"size": [3, 4], "counts": "1"}),
            "annotation 2 is of another size",
        ),
        (lambda c: c["annotations"][2].update(segmentation={"size": [*SIZE]}), "annotation 2 has no valid run-length"),
    ],
)
def test_bad_files(mine, tmp_path, spoil, message):
    value = json.loads((mine / "annotations.json").read_text())
    spoil(value)
    write(mine, value)
    with pytest.raises(UserError, match=message):
        prepare("coco", mine, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_augmented_versions_of_an_image_are_one_group(mine, tmp_path):
    """Roboflow writes several of each, without a test split."""
    names = [f"photo{i}_jpg.rf.{version:032x}.png" for i in range(5) for version in range(3)]
    for name in names:
        shutil.copy(mine / "photos" / "day0" / "0.png", mine / name)
    areas = [{"image_id": 10 + i, "category_id": 1, "segmentation": [rectangle(0, 0, 4, 4)]} for i in range(len(names))]
    write(mine, content(names, areas))
    prepare("coco", mine, tmp_path / "out")
    splits = {}
    for row in read_rows(tmp_path / "out" / "data_split.csv"):
        splits.setdefault(row.group, set()).add(row.split)
    assert set(splits) == {f"photo{i}_jpg" for i in range(5)}
    assert all(len(of_group) == 1 for of_group in splits.values())


def test_boxes_without_areas_are_no_masks(mine, tmp_path):
    """Detection sets hold boxes alone."""
    value = content([f"photos/day{i % 2}/{i}.png" for i in range(6)], [])
    value["annotations"] = [{"id": i, "image_id": i, "category_id": 1, "segmentation": []} for i in range(10, 16)]
    write(mine, value)
    with pytest.raises(UserError, match="coco: no mask has a labelled pixel"):
        prepare("coco", mine, tmp_path / "out")
