"""DRIVE: 14 and 6 images from a folder or its archive, with masks that are equal pixel by pixel."""

import csv
import hashlib
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.converters.field_of_view import by_threshold
from datasets.io import read_image, read_mask
from datasets.preparation.prepare import prepare
from utils.errors import ConfigError, UserError

# The real set may lie beside the repository; it is never part of it.
REAL = Path(__file__).resolve().parents[4] / "shared" / "data" / "DRIVE"


def save_gif(values: np.ndarray, path: Path) -> None:
    """Write the palette indices unchanged: by default Pillow renumbers them."""
    Image.fromarray(values).save(path, optimize=False)


@pytest.fixture
def drive(tmp_path) -> Path:
    """A folder laid out as DRIVE, with 9 x 7 images; mask/ and test/ hold files that must not be used as vessels."""
    root = tmp_path / "DRIVE"
    rng = np.random.default_rng(0)
    for part in ("images", "1st_manual", "mask"):
        (root / "training" / part).mkdir(parents=True)
        (root / "test" / part).mkdir(parents=True)
    (root / "test" / "2nd_manual").mkdir()
    for number in range(21, 41):
        image = rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)
        vessels = rng.integers(0, 2, (9, 7), dtype=np.uint8) * 255
        vessels[0, :2] = 0, 255
        Image.fromarray(image).save(root / f"training/images/{number}_training.tif")
        save_gif(vessels, root / f"training/1st_manual/{number}_manual1.gif")
        inside = np.full((9, 7), 255, np.uint8)
        inside[0], inside[:, -1] = 0, number % 2 * 255
        save_gif(inside, root / f"training/mask/{number}_training_mask.gif")
        digits = f"{number - 20:02d}"
        Image.fromarray(image[::-1]).save(root / f"test/images/{digits}_test.tif")
        save_gif(vessels[::-1], root / f"test/1st_manual/{digits}_manual1.gif")
        save_gif(inside[::-1], root / f"test/mask/{digits}_test_mask.gif")
        # The second observer's files hold 0 and 1.
        second = Image.fromarray(vessels[::-1, ::-1] // 255, mode="P")
        second.putpalette([0, 0, 0, 255, 255, 255])
        second.save(root / f"test/2nd_manual/{digits}_manual2.gif", optimize=False)
    return root


def archive(root: Path, path: Path) -> Path:
    """Pack a folder as zip or tar.gz, with its top folder and with the files that macOS adds."""
    files = sorted(file for file in root.rglob("*") if file.is_file())
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as zipped:
            for file in files:
                zipped.write(file, file.relative_to(root.parent))
            zipped.writestr("__MACOSX/DRIVE/training/images/._21_training.tif", b"no image")
    else:
        with tarfile.open(path, "w:gz") as tar:
            tar.add(root, root.name)
    return path


def contents(root: Path) -> dict[str, bytes]:
    return {str(file.relative_to(root)): file.read_bytes() for file in sorted(root.rglob("*")) if file.is_file()}


def rows(root: Path) -> list[tuple[str, str]]:
    with open(root / "data_split.csv", newline="") as file:
        return [(row["imgs"], row["split"]) for row in csv.DictReader(file)]


def assert_faithful(source: Path, output: Path) -> None:
    """Assert 20 images in the order of their numbers, 14 train and 6 test, equal to the official files."""
    split = rows(output)
    assert [name for name, _ in split] == [f"{number}_training.png" for number in range(21, 41)]
    assert sorted(part for _, part in split) == ["test"] * 6 + ["train"] * 14
    for folder in ("images", "masks"):
        assert sorted(p.name for p in (output / folder).iterdir()) == [name for name, _ in split]
    assert sorted(p.name for p in (output / "fov").iterdir()) == [name for name, _ in split]
    for number in range(21, 41):
        for ours, theirs in (
            (f"fov/{number}_training.png", f"mask/{number}_training_mask.gif"),
            (f"images/{number}_training.png", f"images/{number}_training.tif"),
            (f"masks/{number}_training.png", f"1st_manual/{number}_manual1.gif"),
        ):
            with Image.open(output / ours) as written, Image.open(source / "training" / theirs) as official:
                np.testing.assert_array_equal(np.asarray(written), np.asarray(official), err_msg=ours)


def test_a_tree_becomes_a_set(drive, tmp_path):
    summary = prepare("drive", drive, tmp_path / "out")
    assert_faithful(drive, tmp_path / "out")
    assert summary["images"] == 20
    assert summary["splits"] == {"train": 14, "val": 0, "test": 6}


@pytest.mark.skipif(not REAL.is_dir(), reason="the real DRIVE isn't here")
def test_the_real_set_from_its_tree_and_from_a_zip(tmp_path):
    prepare("drive", REAL, tmp_path / "out")
    assert_faithful(REAL, tmp_path / "out")
    mask = np.asarray(Image.open(tmp_path / "out/masks/21_training.png"))
    assert mask.shape == (584, 565)
    assert np.unique(mask).tolist() == [0, 255]
    path = tmp_path / "DRIVE.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        for file in (REAL / "training").rglob("*.*"):
            zipped.write(file, file.relative_to(REAL.parent))
    prepare("drive", path, tmp_path / "zipped")
    assert contents(tmp_path / "zipped") == contents(tmp_path / "out")


@pytest.mark.parametrize("name", ["DRIVE.zip", "DRIVE.tar.gz"])
def test_an_archive_gives_the_same_files_as_the_tree(drive, tmp_path, name):
    prepare("drive", drive, tmp_path / "tree")
    (tmp_path / "home").mkdir()
    prepare("drive", archive(drive, tmp_path / name), tmp_path / "home" / "out")
    assert contents(tmp_path / "home/out") == contents(tmp_path / "tree")
    assert [p.name for p in (tmp_path / "home").iterdir()] == ["out"]  # nothing unpacked is left


@pytest.mark.parametrize("part", ["..", "training"])
def test_the_parent_folder_or_the_training_part_alone_is_enough(drive, tmp_path, part):
    prepare("drive", drive / part, tmp_path / "out")
    assert_faithful(drive, tmp_path / "out")


def test_the_split_is_drawn_from_the_seed_alone(drive, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        prepare("drive", drive, tmp_path / name, seed=seed)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert rows(tmp_path / "a") != rows(tmp_path / "c")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("1st_manual/33_manual1.gif", None, "training/1st_manual: no file of image 33"),
        ("images/40_training.tif", None, "training/images: no file of image 40"),
        ("images/22_training.tif", b"II*\0", r"22_training\.tif: not a readable image"),
        ("1st_manual/22_manual1.gif", np.zeros((9, 7), np.uint8), r"22_manual1\.gif: no pixel above 0, so no vessel"),
        (
            "1st_manual/22_manual1.gif",
            np.eye(9, 8, dtype=np.uint8),
            r"22_manual1\.gif: mask of 8 x 9 pixels, but image 22_training\.tif is 7 x 9",
        ),
        ("1st_manual/22_manual1.gif", np.eye(9, 7, dtype=np.uint8) + 1, r"22_manual1\.gif: expected a mask of 0 and"),
        ("1st_manual/22_manual1.gif", np.diag([0, 3, 9]).astype(np.uint8), r"22_manual1\.gif: .* found 0, 3, 9"),
    ],
)
def test_missing_and_invalid_files_are_named_and_nothing_is_left(drive, tmp_path, file, content, message):
    path = drive / "training" / file
    path.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        save_gif(content, path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=message) as caught:
        prepare("drive", drive, tmp_path / "new" / "out")
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


def test_other_folders_and_archives_and_no_source_are_refused(drive, tmp_path):
    shutil.rmtree(drive / "training")
    for source in (drive, archive(drive, tmp_path / "half.zip")):
        with pytest.raises(UserError, match=rf"{source.name}: no training/images in it"):
            prepare("drive", source, tmp_path / "out")
    with pytest.raises(UserError, match="give --source"):
        prepare("drive", None, tmp_path / "out")
    with pytest.raises(UserError, match=r"none\.zip: no such folder or archive"):
        prepare("drive", tmp_path / "none.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def assert_test_images(source: Path, output: Path, observer: str) -> None:
    """Assert that the official test images come after the others, as test images."""
    split = rows(output)[20:]
    assert split == [(f"{number:02d}_test.png", "test") for number in range(1, 21)]
    for number in range(1, 21):
        with Image.open(source / "test" / observer / f"{number:02d}_manual{observer[0]}.gif") as mask:
            official = np.asarray(mask)
        assert np.unique(official).tolist() == ([0, 255] if observer == "1st_manual" else [0, 1])
        with Image.open(output / "masks" / f"{number:02d}_test.png") as mask:
            np.testing.assert_array_equal(np.asarray(mask), (official > 0) * 255)
        with (
            Image.open(output / "images" / f"{number:02d}_test.png") as written,
            Image.open(source / "test" / "images" / f"{number:02d}_test.tif") as image,
        ):
            np.testing.assert_array_equal(np.asarray(written), np.asarray(image))


@pytest.mark.parametrize(("observer", "folder"), [(1, "1st_manual"), (2, "2nd_manual")])
def test_all_forty_images(drive, tmp_path, observer, folder):
    summary = prepare("drive", drive, tmp_path / "out", include_test=True, observer=observer)
    assert summary["splits"] == {"train": 14, "val": 0, "test": 26}
    assert_test_images(drive, tmp_path / "out", folder)
    prepare("drive", drive, tmp_path / "paper")
    assert rows(tmp_path / "out")[:20] == rows(tmp_path / "paper")  # the paper's split is the same


def test_the_official_split(drive, tmp_path):
    summary = prepare("drive", drive, tmp_path / "out", split="official")
    assert summary["splits"] == {"train": 20, "val": 0, "test": 20}
    assert_test_images(drive, tmp_path / "out", "1st_manual")
    assert {part for _, part in rows(tmp_path / "out")[:20]} == {"train"}


@pytest.mark.parametrize("top", [True, False])
def test_the_two_archives_as_downloaded(drive, tmp_path, pack, top):
    both = [pack(drive / part, tmp_path / f"{part}.zip", top) for part in ("training", "test")]
    prepare("drive", both, tmp_path / "out", include_test=True)
    prepare("drive", drive, tmp_path / "tree", include_test=True)
    assert contents(tmp_path / "out") == contents(tmp_path / "tree")


def test_a_mismatching_archive_is_used_with_a_warning_that_names_both_digests(drive, tmp_path, caplog):
    path = archive(drive, tmp_path / "training.zip")
    prepare("drive", path, tmp_path / "out")
    (message,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "training.zip" in message
    assert hashlib.sha256(path.read_bytes()).hexdigest() in message
    assert "7101e19598e2b7aacdbd5e6e7575057b9154a4aaec043e0f4e28902bf4e2e209" in message


def test_the_second_observer_needs_test_images(drive, tmp_path):
    with pytest.raises(ConfigError, match=r"--observer 2: .* add --include-test"):
        prepare("drive", drive, tmp_path / "out", observer=2)
    shutil.rmtree(drive / "test" / "1st_manual")
    with pytest.raises(UserError, match=r"test/1st_manual: no file of image 01; .* may come without it"):
        prepare("drive", drive, tmp_path / "out", include_test=True)
    shutil.rmtree(drive / "test")
    with pytest.raises(UserError, match="DRIVE: no test/images in it"):
        prepare("drive", drive, tmp_path / "out", include_test=True)
    assert not (tmp_path / "out").exists()


def test_fields_of_view_are_all_there_or_none(drive, tmp_path):
    prepare("drive", drive, tmp_path / "all", split="official")
    for digits in ("01", "20"):
        ours, theirs = tmp_path / f"all/fov/{digits}_test.png", drive / f"test/mask/{digits}_test_mask.gif"
        np.testing.assert_array_equal(np.asarray(Image.open(ours)), np.asarray(Image.open(theirs)))
    (drive / "training/mask/33_training_mask.gif").unlink()
    with pytest.raises(UserError, match=r"training/mask: no file of image 33; the set is incomplete"):
        prepare("drive", drive, tmp_path / "out")
    shutil.rmtree(drive / "training/mask")
    prepare("drive", drive, tmp_path / "out")
    assert not (tmp_path / "out" / "fov").exists()


@pytest.mark.skipif(not REAL.is_dir(), reason="the real DRIVE isn't here")
@pytest.mark.parametrize("threshold", [20, 40, 60])
def test_the_threshold_rule_finds_nearly_the_set_s_own_fields_of_view(threshold):
    for number in (21, 30, 40):
        ours = by_threshold(threshold)(read_image(REAL / f"training/images/{number}_training.tif"))
        theirs = read_mask(REAL / f"training/mask/{number}_training_mask.gif") > 0
        assert (ours & theirs).sum() / (ours | theirs).sum() > 0.985


@pytest.mark.skipif(not REAL.is_dir(), reason="the real DRIVE isn't here")
@pytest.mark.parametrize(("observer", "folder"), [(1, "1st_manual"), (2, "2nd_manual")])
def test_all_forty_of_the_real_set(tmp_path, observer, folder):
    prepare("drive", REAL, tmp_path / "out", include_test=True, observer=observer)
    assert_test_images(REAL, tmp_path / "out", folder)
