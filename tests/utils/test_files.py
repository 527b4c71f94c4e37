"""Atomic writing: the old file or the new one, and nothing else left in the folder."""

import json

import pytest

from utils.files import atomic_path, remove_leftovers, sha256, write_json, write_text


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write_half() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            assert path.read_text() == "old"
            raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        write_half()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_the_new_file_takes_the_place_of_the_old(tmp_path):
    path = tmp_path / "made" / "a.tar.gz"
    for text in ("one", "two"):
        with atomic_path(path) as temporary:
            assert temporary.parent == path.parent
            assert temporary.suffix == ".gz"
            temporary.write_text(text)
        assert path.read_text() == text
    assert [p.name for p in path.parent.iterdir()] == ["a.tar.gz"]


def test_a_reader_of_the_old_file_keeps_it_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with open(path) as reader:
        write_text(path, "new, and longer")
        assert reader.read() == "old"
    assert path.read_text() == "new, and longer"


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a"):
        pass
    assert not list(tmp_path.iterdir())


def test_json_and_text(tmp_path):
    write_json(tmp_path / "a.json", {"dice": 0.5})
    assert json.loads((tmp_path / "a.json").read_text()) == {"dice": 0.5}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "b.json", float("nan"))
    write_text(tmp_path / "c.txt", "é")
    assert (tmp_path / "c.txt").read_bytes() == b"\xc3\xa9"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "c.txt"]


def test_sha256_of_a_known_text(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path):
    left = [".a.123.tmp.pth", ".a.pth.7.tmp.sha256", ".a.5.tmp"]
    kept = ["a.pth", ".hidden", ".a.tmp.pth", "b.9.tmp.pth"]
    for name in (*left, *kept):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
