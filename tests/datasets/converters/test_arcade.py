"""ARCADE: COCO files with several polygons per annotation, stenoses, and images without annotation."""

import json
import math

import numpy as np
import pytest
from matplotlib.path import Path as Outline
from PIL import Image

from datasets.converters import arcade as module
from datasets.preparation.prepare import prepare
from utils.errors import UserError

SIZE = (24, 32)  # height, width
COUNTS = {"train": 12, "val": 3, "test": 4}
CATEGORIES = [{"id": n, "name": "stenosis" if n == 26 else str(n)} for n in range(1, 27)]


def bars(rng: np.random.Generator) -> tuple[list[float], np.ndarray]:
    """Return a polygon around a row of bars, often partly outside the image, and its mask; coordinates are whole."""
    x, base = int(rng.integers(-4, SIZE[1] - 2)), int(rng.integers(2, SIZE[0] + 4))
    corners, mask = [(x, base)], np.zeros(SIZE, bool)
    for width, height in rng.integers(1, 9, (4, 2)).tolist():
        top = base - height
        corners += [(x, top), (x + width, top)]
        mask[max(top, 0) : base, max(x, 0) : max(x + width, 0)] = True
        x += width
    return [float(value) for corner in (*corners, (x, base)) for value in corner], mask


@pytest.fixture
def arcade(tmp_path, monkeypatch):
    """The official layout with fewer images, and the truth {name in the set: (image, mask)} of all parts.

    Image 2 of every part has no annotation, image 3 only a stenosis, image 4 an annotation of three polygons.
    """
    monkeypatch.setattr(module, "_SPLIT_SIZES", {"train": 9, "test": 3})
    root, rng, truth = tmp_path / "arcade", np.random.default_rng(0), {}
    for part, count in COUNTS.items():
        images, annotations = [], []
        folder = root / "syntax" / part
        (folder / "images").mkdir(parents=True)
        for number in rng.permutation(np.arange(1, count + 1)).tolist():
            pixels = rng.integers(0, 256, SIZE, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
            images.append({"id": number + 100, "file_name": f"{number}.png", "width": SIZE[1], "height": SIZE[0]})
            mask = np.zeros(SIZE, bool)
            for category, parts in {2: {}, 3: {26: 1}, 4: {5: 3, 7: 1}}.get(number, {1: 1, 26: 2, 12: 1}).items():
                drawn = [bars(rng) for _ in range(parts)]
                polygons = [polygon for polygon, _ in drawn]
                annotation = {"id": len(annotations), "image_id": number + 100, "category_id": category}
                annotations.append(annotation | {"segmentation": polygons})
                if category != 26:
                    mask |= np.logical_or.reduce([filled for _, filled in drawn])
            truth[f"{part}_{number}.png"] = pixels, mask
        (folder / "annotations").mkdir()
        content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
        (folder / "annotations" / f"{part}.json").write_text(json.dumps(content))
        # The other task has the same layout, and polygons of stenoses.
        other = root / "stenosis" / part
        (other / "images").mkdir(parents=True)
        (other / "annotations").mkdir()
        (other / "annotations" / f"{part}.json").write_text("{}")
    return root, truth


def of_part(truth, part):
    return {name: pair for name, pair in truth.items() if name.startswith(part)}


def test_the_papers_split_is_drawn_from_the_training_part(arcade, tmp_path, rows, assert_written):
    root, truth = arcade
    summary = prepare("arcade", root, tmp_path / "out")
    assert_written(tmp_path / "out", of_part(truth, "train") | of_part(truth, "val"))
    assert summary["splits"] == {"train": 9, "val": 3, "test": 3}
    assert summary["images_without_annotation"] == 4
    names = [f"train_{n}.png" for n in range(1, 13)] + [f"val_{n}.png" for n in range(1, 4)]
    assert [row["imgs"] for row in rows(tmp_path / "out")] == names
    for name in ("train_2.png", "train_3.png"):
        assert not np.asarray(Image.open(tmp_path / "out" / "masks" / name)).any()


def test_the_paper_draws_700_and_300():
    assert module._SPLIT_SIZES == {"train": 700, "test": 300}


def test_the_official_split_keeps_the_same_numbers_apart(arcade, tmp_path, rows, assert_written):
    root, truth = arcade
    summary = prepare("arcade", root, tmp_path / "out", split="official")
    assert_written(tmp_path / "out", truth)
    assert summary["splits"] == COUNTS
    assert all(row["imgs"].startswith(row["split"]) for row in rows(tmp_path / "out"))


@pytest.mark.parametrize("top", [True, False])
def test_an_archive_gives_the_same_files(arcade, tmp_path, pack, contents, top):
    prepare("arcade", arcade[0], tmp_path / "tree")
    prepare("arcade", pack(arcade[0], tmp_path / "arcade.zip", top), tmp_path / "out")
    prepare("arcade", arcade[0] / "syntax", tmp_path / "inner")
    assert contents(tmp_path / "out") == contents(tmp_path / "tree") == contents(tmp_path / "inner")


def edit(root, change):
    path = root / "syntax" / "train" / "annotations" / "train.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["images"].append(c["images"][0]), r"train\.json: an image is listed twice"),
        (lambda c: c["images"].append(c["images"][0] | {"id": 999}), r"train\.json: an image is listed twice"),
        (lambda c: c["images"].append(c["images"][0] | {"id": 9, "file_name": "77.png"}), r"images/77\.png: missing"),
        (lambda c: c["images"].clear(), r"annotation 0 is of image \d+, which is not listed"),
        (
            lambda c: c["annotations"][0].update(segmentation=[[1, 2, 3]]),
            "a polygon of annotation 0 is not a list of x",
        ),
        (lambda c: c["annotations"][0].update(segmentation=[[[1, 2], [3, 4]]]), "a polygon of annotation 0 is not"),
        (
            lambda c: c["annotations"][0].update(segmentation=[[0, 0, 9, 0, 9, math.nan]]),
            "a polygon of annotation 0 is",
        ),
        (lambda c: c["annotations"][0].update(segmentation=[[0, 0, 1e12, 0, 1e12, 1e12]]), "a polygon of annotation 0"),
        (lambda c: c["annotations"][0].update(segmentation={"counts": "x"}), "annotation 0 is not a list of polygons"),
        (lambda c: c["annotations"][0].update(segmentation=[["a", "b"]]), "a polygon of annotation 0 is not"),
        (lambda c: c.pop("categories"), r"train\.json: not a COCO file .*'categories'"),
        (lambda c: c["images"][0].update(width=31), r"\d+\.png: 32 x 24 pixels, but train\.json says 31 x 24"),
    ],
)
def test_invalid_annotations_are_named(arcade, tmp_path, change, message):
    edit(arcade[0], change)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=message) as caught:
        prepare("arcade", arcade[0], tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


def test_an_unlisted_image_and_a_missing_file(arcade, tmp_path):
    folder = arcade[0] / "syntax" / "train"
    Image.new("L", SIZE[::-1]).save(folder / "images" / "99.png")
    with pytest.raises(UserError, match=r"99\.png: train\.json does not list it"):
        prepare("arcade", arcade[0], tmp_path / "out")
    (folder / "images" / "99.png").unlink()
    (folder / "annotations" / "train.json").unlink()
    with pytest.raises(UserError, match=r"train\.json: missing"):
        prepare("arcade", arcade[0], tmp_path / "out")


def test_a_category_named_stenosis_is_not_vessel_whatever_its_number(arcade, tmp_path, assert_written):
    root, truth = arcade

    def renumber(content):
        for category in content["categories"]:
            category["name"] = {26: "spare", 3: "stenosis"}.get(category["id"], category["name"])
        for annotation in content["annotations"]:
            if annotation["category_id"] == 26:
                annotation["category_id"] = 3

    edit(root, renumber)
    prepare("arcade", root, tmp_path / "out")
    assert_written(tmp_path / "out", of_part(truth, "train") | of_part(truth, "val"))


def test_category_26_is_not_vessel_whatever_its_name(arcade, tmp_path, assert_written):
    root, truth = arcade
    edit(root, lambda content: content["categories"][25].update(name="26"))
    prepare("arcade", root, tmp_path / "out")
    assert_written(tmp_path / "out", of_part(truth, "train") | of_part(truth, "val"))


def mask_of(arcade, tmp_path, polygons):
    """Prepare the set with these polygons as the only annotation of image 1, and return its mask."""

    def draw(content):
        annotation = {"id": 0, "image_id": 101, "category_id": 1, "segmentation": polygons}
        content["annotations"] = [annotation]

    edit(arcade[0], draw)
    prepare("arcade", arcade[0], tmp_path / "out", force=True)
    with Image.open(tmp_path / "out" / "masks" / "train_1.png") as written:
        return np.asarray(written) == 255


def rectangle(left, top, right, bottom):
    return [left, top, right, top, right, bottom, left, bottom]


def test_polygons_of_one_annotation_are_united_and_have_no_holes(arcade, tmp_path):
    expected = np.zeros(SIZE, bool)
    expected[2:12, 3:20] = True
    expected[10:16, 15:25] = True
    polygons = [rectangle(3, 2, 20, 12), rectangle(6, 4, 9, 8), rectangle(15, 10, 25, 16)]
    np.testing.assert_array_equal(mask_of(arcade, tmp_path, polygons), expected)


def test_polygons_without_an_area_cover_nothing(arcade, tmp_path):
    polygons = [[], [1, 1], [2, 3, 9, 9], [1, 1, 3, 3, 5, 5], rectangle(50, 50, 60, 60)]
    assert not mask_of(arcade, tmp_path, polygons).any()


@pytest.mark.parametrize("seed", range(5))
def test_slanted_outlines_differ_from_the_exact_polygon_by_less_than_a_pixel(arcade, tmp_path, seed):
    """Matplotlib, not the code under test, decides which pixel centres lie inside."""
    rng = np.random.default_rng(seed)
    angles, radii = np.sort(rng.uniform(0, 2 * np.pi, 9)), rng.uniform(4, 12, 9)
    points = np.stack([16 + radii * np.cos(angles), 12 + radii * np.sin(angles)], -1).round(2)
    found = mask_of(arcade, tmp_path, [points.ravel().tolist()])
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    centres = np.stack([x.ravel(), y.ravel()], -1)
    exact = Outline(points, closed=False).contains_points(centres).reshape(SIZE)
    starts, sides = points, np.roll(points, -1, axis=0) - points
    along = ((centres[:, None] - starts) * sides).sum(-1) / (sides**2).sum(-1)
    nearest = starts + along.clip(0, 1)[..., None] * sides
    distance = np.linalg.norm(centres[:, None] - nearest, axis=-1).min(-1).reshape(SIZE)
    assert exact.sum() > 50
    np.testing.assert_array_equal(found[distance >= 1], exact[distance >= 1])
    assert found.sum() == pytest.approx(exact.sum(), rel=0.1)


def test_another_number_of_images_needs_folds(arcade, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SPLIT_SIZES", {"train": 700, "test": 300})
    with pytest.raises(UserError, match=r"12 images cannot be split into 700 train \+ 300 test: .*--folds"):
        prepare("arcade", arcade[0], tmp_path / "out")
    assert prepare("arcade", arcade[0], tmp_path / "out", folds=4)["folds"] == [3, 3, 3, 3]


@pytest.mark.slow
def test_a_thousand_images_of_full_size(tmp_path, assert_written):
    """As many images as in the real set: all are counted, some compared."""
    folder = tmp_path / "arcade" / "syntax" / "train"
    (folder / "images").mkdir(parents=True)
    (folder / "annotations").mkdir()
    images, annotations = [], []
    pixels = np.random.default_rng(0).integers(0, 256, (512, 512), dtype=np.uint8)
    for number in range(1, 1001):
        Image.fromarray(np.roll(pixels, number)).save(folder / "images" / f"{number}.png", compress_level=1)
        images.append({"id": number, "file_name": f"{number}.png", "width": 512, "height": 512})
        left = number % 400
        polygon = [left, 100, left + 50, 100, left + 50, 140, left, 140]
        annotations.append({"id": number, "image_id": number, "category_id": 1, "segmentation": [polygon]})
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    (folder / "annotations" / "train.json").write_text(json.dumps(content))
    assert prepare("arcade", tmp_path / "arcade", tmp_path / "out")["splits"] == {"train": 700, "val": 0, "test": 300}
    for number in (1, 500, 1000):
        mask = np.zeros((512, 512), np.uint8)
        mask[100:140, number % 400 : number % 400 + 50] = 255
        with Image.open(tmp_path / "out" / "masks" / f"train_{number}.png") as written:
            np.testing.assert_array_equal(np.asarray(written), mask)
