"""XRay-Angio: ASCII PGMs, pairs by number, masks that are bright but not 255."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.preparation.prepare import prepare
from utils.errors import UserError

Truth = dict[str, tuple[np.ndarray, np.ndarray]]


def write_ascii_pgm(path: Path, values: np.ndarray, white: int = 255) -> None:
    lines = [" ".join(str(value) for value in row) for row in values.tolist()]
    path.write_text(f"P2\n# made by a test\n{values.shape[1]} {values.shape[0]}\n{white}\n" + "\n".join(lines) + "\n")


@pytest.fixture
def angiograms(tmp_path) -> tuple[Path, Truth]:
    """The official layout with 134 images of 12 x 10, and the truth."""
    root = tmp_path / "Database_134_Angiograms"
    root.mkdir()
    rng = np.random.default_rng(0)
    truth = {}
    for number in range(1, 135):
        image = rng.integers(0, 256, (12, 10), dtype=np.uint8)
        vessels = rng.random((12, 10)) < 0.2
        vessels[0, 0] = True
        # Dark grey specks on the ground, bright grey vessels, none of them 255.
        mask = np.where(vessels, rng.integers(180, 255, (12, 10)), rng.integers(0, 60, (12, 10)))
        write_ascii_pgm(root / f"{number}.pgm", image)
        write_ascii_pgm(root / f"{number}_gt.pgm", mask)
        truth[f"{number}.png"] = image, vessels
    return root, truth


def test_masks_are_exact_and_the_split_is_the_papers(angiograms, tmp_path, rows, assert_written):
    root, truth = angiograms
    with Image.open(root / "1.pgm") as image:
        assert image.format == "PPM"
    summary = prepare("xray_angio", root, tmp_path / "out")
    assert_written(tmp_path / "out", truth)
    assert summary["splits"] == {"train": 93, "val": 0, "test": 41}
    assert [row["imgs"] for row in rows(tmp_path / "out")] == [f"{n}.png" for n in range(1, 135)]  # 10 after 9


@pytest.mark.parametrize("top", [True, False])
@pytest.mark.parametrize("name", ["DB_Angiograms_134.zip", "a.tar.gz"])
def test_an_archive_gives_the_same_files(angiograms, tmp_path, pack, contents, name, top):
    prepare("xray_angio", angiograms[0], tmp_path / "tree")
    prepare("xray_angio", pack(angiograms[0], tmp_path / name, top), tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "tree")


def test_missing_and_invalid_files_are_named(angiograms, tmp_path):
    root, _ = angiograms
    write_ascii_pgm(root / "7_gt.pgm", np.ones((12, 10), np.uint8))
    with pytest.raises(UserError, match=r"7_gt\.pgm: no pixel above 100, so no vessel; the mask holds 1"):
        prepare("xray_angio", root, tmp_path / "out")
    (root / "7_gt.pgm").unlink()
    with pytest.raises(UserError, match=r"7_gt\.pgm: missing"):
        prepare("xray_angio", root, tmp_path / "out")
    (root / "1_gt.pgm").unlink()
    with pytest.raises(UserError, match=r"1_gt\.pgm: missing"):
        prepare("xray_angio", root, tmp_path / "out")
    assert not (tmp_path / "out").exists()
