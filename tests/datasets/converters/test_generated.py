"""The generated sets: reproducible, exact, with the documented labels, and not empty."""

import csv
from pathlib import Path

import numpy as np
import pytest

from datasets import parallel
from datasets.converters import shapes, synthetic
from datasets.converters.drawing import coverage, stroke_coverage
from datasets.io import read_image, read_mask
from datasets.preparation.prepare import prepare
from utils.errors import ConfigError


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def splits(root: Path) -> dict[str, int]:
    with open(root / "data_split.csv", newline="") as file:
        parts = [row["split"] for row in csv.DictReader(file)]
    return {part: parts.count(part) for part in set(parts)}


def test_coverage_is_the_share_of_each_pixel():
    covered = coverage(8, lambda pen, s: pen.rectangle([2 * s, 3 * s, 5 * s - 1, 4 * s - 1 + s // 2], fill=255))
    expected = np.zeros((8, 8))
    expected[3, 2:5], expected[4, 2:5] = 1, 0.5
    np.testing.assert_allclose(covered, expected, atol=1 / 255)


@pytest.mark.parametrize("width", [2.0, 5.0, 9.0])
def test_a_stroke_is_as_wide_as_asked(width):
    points = np.array([[16.0, 32.0], [48.0, 32.0]])
    covered = stroke_coverage(64, points, np.full(2, width))
    assert covered[:, 32].sum() == pytest.approx(width, abs=0.3)


@pytest.mark.parametrize(
    ("name", "options"), [("synthetic", {"count": 6, "size": 64}), ("shapes", {"count": 40, "size": 32})]
)
def test_the_seed_decides_every_byte(tmp_path, name, options):
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        prepare(name, None, tmp_path / folder, seed=seed, **options)
    one, again, other = (contents(tmp_path / folder) for folder in "abc")
    assert one == again
    assert not [key for key in one if key.startswith("images/") and one[key] == other[key]]


def test_shapes_do_not_depend_on_the_number_of_processes(tmp_path, monkeypatch):
    for folder, processes in (("a", 1), ("b", 3)):
        monkeypatch.setattr(parallel, "usable_cores", lambda n=processes: n)
        prepare("shapes", None, tmp_path / folder, seed=1, count=40, size=32)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_synthetic_vessels(tmp_path):
    prepare("synthetic", None, tmp_path / "out", count=6, size=128)
    assert splits(tmp_path / "out") == {"train": 4, "val": 1, "test": 1}
    kinds = set()
    for path in sorted((tmp_path / "out" / "images").iterdir()):
        image, mask = read_image(path).astype(float), read_mask(tmp_path / "out" / "masks" / path.name)
        assert set(np.unique(mask)) == {0, 255}
        assert 0.01 < (mask == 255).mean() < 0.4
        kinds.add(path.name.split("_")[0])
        # Vessels are darker than what lies around them.
        ring = np.zeros(mask.shape, bool)
        for dy, dx in ((0, 4), (0, -4), (4, 0), (-4, 0)):
            ring |= np.roll(mask, (dy, dx), (0, 1)) == 255
        ring &= mask == 0
        assert np.median(image[mask == 255][:, 1]) < np.median(image[ring][:, 1]) - 3
    assert kinds == {"fundus", "angiogram"}


def test_synthetic_with_two_labels_has_the_same_vessels(tmp_path):
    prepare("synthetic", None, tmp_path / "one", count=6, size=96)
    prepare("synthetic", None, tmp_path / "two", count=6, size=96, labels=2)
    for path in (tmp_path / "one" / "masks").iterdir():
        one, two = read_mask(path), read_mask(tmp_path / "two" / "masks" / path.name)
        assert set(np.unique(two)) == {0, 1, 2}
        np.testing.assert_array_equal(one == 255, two == 1)
        image = (tmp_path / "one" / "images" / path.name).read_bytes()
        assert image == (tmp_path / "two" / "images" / path.name).read_bytes()


def test_shapes_hold_all_labels_and_every_image_a_curve():
    found = {}
    for i in range(40):
        image, labels = shapes.draw_shapes(np.random.default_rng([0, i]), 64)
        assert (image.shape, image.dtype, labels.shape, labels.dtype) == ((64, 64, 3), np.uint8, (64, 64), np.uint8)
        found[i] = set(np.unique(labels).tolist())
    assert set.union(*found.values()) == {0, 1, 2, 3}
    assert [i for i, values in found.items() if 3 not in values] == []


@pytest.mark.parametrize(
    ("name", "source", "options", "message"),
    [
        ("synthetic", True, {}, "takes no --source"),
        ("shapes", True, {}, "takes no --source"),
        ("synthetic", False, {"count": 2}, "--count"),
        ("synthetic", False, {"labels": 3}, "--labels"),
        ("shapes", False, {"size": 4}, "--size"),
    ],
)
def test_options_out_of_range_leave_nothing(tmp_path, name, source, options, message):
    with pytest.raises(ConfigError, match=message):
        prepare(name, tmp_path if source else None, tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


def test_without_strokes_nothing_is_labelled_vessel(monkeypatch):
    monkeypatch.setattr(synthetic, "_grow", lambda *_: iter(()))
    _, labels = synthetic.draw_vessels(np.random.default_rng(0), 64, fundus=False)
    assert 1 not in labels
