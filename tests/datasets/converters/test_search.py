"""Files are found in a source with or without a top folder, and sorted by number."""

from pathlib import Path

import pytest

from datasets.converters.search import find_in_source, images_by_stem, match_files, match_files_below, natural
from utils.errors import UserError


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def test_a_path_is_found_below_other_folders(tmp_path):
    touch(tmp_path, "one/two/three/four/set/images/a.png")
    inner = tmp_path / "one/two/three/four/set/images"
    for source in ("one", "one/two/three", "one/two/three/four", "one/two/three/four/set"):
        assert find_in_source(tmp_path / source, "set/images") == inner
    with pytest.raises(UserError, match="no set/images in it"):
        find_in_source(tmp_path, "set/images")  # too far below
    with pytest.raises(UserError, match="give --source"):
        find_in_source(None, "set/images")


def test_a_path_may_begin_with_the_name_of_the_folder_or_archive(tmp_path, monkeypatch):
    touch(tmp_path, "set/images/a.png", "both/other.zip/images/a.png", "images/a.png")
    assert find_in_source(tmp_path / "set", "set/images") == tmp_path / "set/images"
    assert find_in_source(tmp_path / "both", "other/images") == tmp_path / "both/other.zip/images"
    monkeypatch.chdir(tmp_path / "set")
    assert find_in_source(Path("."), "set/images") == Path("images")
    with pytest.raises(UserError, match="no set/images in it"):
        find_in_source(tmp_path / "both", "set/images")


def test_the_first_path_that_exists_at_its_nearest_place(tmp_path):
    touch(tmp_path, "a/b/first/x", "second/x", "z/first/x")
    assert find_in_source(tmp_path, "first", "second") == tmp_path / "z/first"
    assert find_in_source(tmp_path, "none", "second") == tmp_path / "second"


def test_hidden_folders_and_files_that_macos_adds_are_ignored(tmp_path):
    touch(tmp_path, "__MACOSX/set/images/._1.png", ".trash/set/images/1.png", "top/set/images/1.png")
    assert find_in_source(tmp_path, "set/images") == tmp_path / "top/set/images"
    assert match_files_below(tmp_path, r"(?:\._)?(\d+)\.png", int) == {1: tmp_path / "top/set/images/1.png"}


def test_files_by_number(tmp_path):
    touch(tmp_path, "10.pgm", "9.PGM", "1_gt.pgm", "x10.pgm", "sub/3.pgm", "2.pgm.txt")
    (tmp_path / "4.pgm").mkdir()
    found = match_files(tmp_path, r"(\d+)\.pgm", int)
    assert list(found.items()) == [(9, tmp_path / "9.PGM"), (10, tmp_path / "10.pgm")]
    assert match_files(tmp_path / "none", ".*") == {}
    touch(tmp_path, "09.pgm")
    with pytest.raises(UserError, match=r"9\.PGM: has the same number or name as .*09\.pgm; keep one"):
        match_files(tmp_path, r"(\d+)\.pgm", int)


def test_images_by_stem(tmp_path):
    touch(tmp_path, "i10.tif", "i2.png", "i2.txt", "._i2.png", "Thumbs.db")
    assert list(images_by_stem(tmp_path)) == ["i2", "i10"]
    touch(tmp_path, "i2.jpg")
    with pytest.raises(UserError, match=r"i2\.png: a second image with the stem of i2\.jpg"):
        images_by_stem(tmp_path)
    with pytest.raises(UserError, match="none: no such folder"):
        images_by_stem(tmp_path / "none")


def test_natural_order():
    names = ["a10b2", "a2", "a10b10", "10", "b", "2"]
    assert sorted(names, key=natural) == ["a2", "a10b2", "a10b10", "b", "2", "10"]
