"""STARE: gzipped PPMs in one archive or in two, two observers."""

import gzip
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.converters import stare as module
from datasets.preparation.prepare import prepare
from utils.errors import UserError

NUMBERS = [1, 2, 3, 4, 5, 44, 77, 81, 82, 139, 162, 163, 235, 236, 239, 240, 255, 291, 319, 324]


def packed_ppm(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format="PPM")
    return gzip.compress(buffer.getvalue(), mtime=0)


@pytest.fixture
def stare(tmp_path) -> tuple[Path, dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]]:
    """The contents of each archive in a folder of its own, with small images, and the truth by observer."""
    root, rng, truth = tmp_path / "STARE", np.random.default_rng(0), {"ah": {}, "vk": {}}
    for folder in ("stare-images", "labels-ah", "labels-vk"):
        (root / folder).mkdir(parents=True)
    for number in NUMBERS:
        image = rng.integers(0, 256, (12, 14, 3), dtype=np.uint8)
        (root / "stare-images" / f"im{number:04d}.ppm.gz").write_bytes(packed_ppm(image))
        for observer in truth:
            vessels = rng.random((12, 14)) < 0.2
            mask = np.repeat((vessels * np.uint8(255))[..., None], 3, 2)  # a grey picture in a colour file
            (root / f"labels-{observer}" / f"im{number:04d}.{observer}.ppm.gz").write_bytes(packed_ppm(mask))
            truth[observer][f"im{number:04d}.png"] = image, vessels
    return root, truth


@pytest.mark.parametrize(("observer", "kind"), [(None, "ah"), (1, "ah"), (2, "vk")])
def test_masks_are_those_of_the_observer(stare, tmp_path, rows, assert_written, observer, kind):
    root, truth = stare
    summary = prepare("stare", root, tmp_path / "out", observer=observer)
    assert_written(tmp_path / "out", truth[kind])
    assert summary["splits"] == {"train": 14, "val": 0, "test": 6}
    assert [row["imgs"] for row in rows(tmp_path / "out")] == [f"im{number:04d}.png" for number in NUMBERS]


@pytest.mark.parametrize("name", ["STARE.tar", "STARE.tar.gz", "STARE.zip"])
def test_one_archive_of_all_gives_the_same_files(stare, tmp_path, pack, contents, name):
    prepare("stare", stare[0], tmp_path / "tree")
    prepare("stare", pack(stare[0], tmp_path / name), tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "tree")


@pytest.mark.parametrize("top", [True, False])
def test_the_downloaded_archives_give_the_same_files(stare, tmp_path, pack, contents, top):
    prepare("stare", stare[0], tmp_path / "tree")
    archives = [pack(stare[0] / name, tmp_path / f"{name}.tar", top) for name in ("stare-images", "labels-ah")]
    prepare("stare", archives, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "tree")


def test_uncompressed_files(stare, tmp_path, contents):
    prepare("stare", stare[0], tmp_path / "tree")
    for path in stare[0].rglob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    prepare("stare", stare[0], tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "tree")


def test_missing_and_damaged_files_are_named(stare, tmp_path, monkeypatch):
    image = stare[0] / "stare-images" / "im0044.ppm.gz"
    content = image.read_bytes()
    for damage, message in (
        (content[:-20], r"stare-images/im0044\.ppm\.gz: not a readable gzip file"),
        (b"text", r"stare-images/im0044\.ppm\.gz: not a readable gzip file"),
        (gzip.compress(b"P6 text"), r"stare-images/im0044\.ppm\.gz: not a readable image"),
    ):
        image.write_bytes(damage)
        with pytest.raises(UserError, match=message):
            prepare("stare", stare[0], tmp_path / "out")
    image.write_bytes(content)
    monkeypatch.setattr(module, "_MAX_BYTES", 100)
    with pytest.raises(UserError, match=r"im0001\.ppm\.gz: unpacks to more than 100 bytes"):
        prepare("stare", stare[0], tmp_path / "out")
    (stare[0] / "labels-ah" / "im0044.ah.ppm.gz").unlink()
    with pytest.raises(UserError, match=r"im0044\.ppm\.gz: no \.ah\.ppm file belongs to it"):
        prepare("stare", stare[0], tmp_path / "out")
    image.with_suffix("").write_bytes(b"twice")
    with pytest.raises(UserError, match=r"im0044\.ppm\.gz: has the same number or name as .*im0044\.ppm; keep one"):
        prepare("stare", stare[0], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_images_without_labels_and_an_empty_source(stare, tmp_path, pack):
    only_images = pack(stare[0] / "stare-images", tmp_path / "stare-images.tar")
    with pytest.raises(UserError, match=r"im0001\.ppm\.gz: no \.ah\.ppm file belongs to it"):
        prepare("stare", only_images, tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no images for the \.ah\.ppm files"):
        prepare("stare", tmp_path / "empty", tmp_path / "out")
    with pytest.raises(UserError, match="give --source"):
        prepare("stare", None, tmp_path / "out")
