"""Archives are unpacked inside their folder or refused."""

import errno
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from datasets.preparation import sources as module
from datasets.preparation.sources import open_sources
from utils.errors import ConfigError, UserError


def zip_of(path: Path, *members: tuple[str, bytes], link: bool = False) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o120777 if link else 0o100644) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            zipped.writestr(info, content)
    return path


def tar_of(path: Path, *members: tuple[str, bytes], kind: bytes = tarfile.REGTYPE, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(content)
            else:
                info.linkname = content.decode()
            tar.addfile(info, io.BytesIO(content))
    return path


def refusal(source: Path, scratch: Path, **options) -> str:
    """Return the one-line error that refuses an archive; check that no file is left in or beside the scratch folder."""
    around = sorted(scratch.parent.rglob("*"))
    with pytest.raises(UserError) as caught, open_sources([source], scratch, **options):
        pass
    assert sorted(scratch.parent.rglob("*")) == around
    assert "\n" not in str(caught.value)
    assert str(source) in str(caught.value)
    return str(caught.value)


@pytest.fixture
def scratch(tmp_path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


@pytest.mark.parametrize(("make", "name"), [(zip_of, "a.zip"), (tar_of, "a.tar.gz"), (tar_of, "a.TGZ")])
def test_an_archive_is_a_folder_while_it_is_open(tmp_path, scratch, make, name):
    members = (("top/x.txt", b"x"), ("top/y/z.txt", b"z"), ("__MACOSX/top/._x.txt", b"-"), ("top/.DS_Store", b"-"))
    source = make(tmp_path / name, *members)
    with open_sources([source], scratch) as folder:
        assert folder.name == name  # errors of what reads the folder then name the archive
        found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        assert found == {"top/x.txt": b"x", "top/y/z.txt": b"z"}
    assert not list(scratch.iterdir())


def test_a_folder_is_used_in_place_and_no_source_is_none(tmp_path, scratch):
    with open_sources([tmp_path], scratch) as folder:
        assert folder == tmp_path
    with open_sources([], scratch) as folder:
        assert folder is None
    assert tmp_path.is_dir()


def test_several_archives_are_unpacked_side_by_side(tmp_path, scratch):
    both = [zip_of(tmp_path / "a.zip", ("x.txt", b"x")), tar_of(tmp_path / "b.tar", ("y.txt", b"y"), mode="w")]
    with open_sources(both, scratch) as folder:
        assert {str(p.relative_to(folder)) for p in folder.rglob("*.txt")} == {"a.zip/x.txt", "b.tar/y.txt"}
    assert not list(scratch.iterdir())


def test_several_sources_are_archives_of_different_names(tmp_path, scratch):
    one = zip_of(tmp_path / "a.zip", ("x.txt", b"x"))
    with (
        pytest.raises(UserError, match="scratch: several sources must all be archives"),
        open_sources([one, scratch], scratch),
    ):
        pass
    (tmp_path / "more").mkdir()
    other = zip_of(tmp_path / "more" / "a.zip", ("x.txt", b"x"))
    with (
        pytest.raises(UserError, match=r"a\.zip: given twice, or two sources have this name"),
        open_sources([one, other], scratch),
    ):
        pass


def test_errors_in_the_block_name_the_archive_and_not_the_temporary_path(tmp_path, scratch):
    source = zip_of(tmp_path / "a.zip", ("top/x.txt", b"x"))
    with pytest.raises(ConfigError) as caught, open_sources([source], scratch) as folder:
        raise ConfigError(f"{folder / 'top' / 'x.txt'}: odd")
    assert str(caught.value) == "a.zip/top/x.txt: odd"


@pytest.mark.parametrize(
    "name", ["../evil.txt", "a/../../evil.txt", "ABSOLUTE/evil.txt", "..\\evil.txt", "C:\\evil.txt"]
)
@pytest.mark.parametrize(("make", "archive"), [(zip_of, "a.zip"), (tar_of, "a.tar.gz")])
def test_members_that_lead_out_of_the_folder(tmp_path, scratch, make, archive, name):
    name = name.replace("ABSOLUTE", str(tmp_path))
    message = refusal(make(tmp_path / archive, ("fine.txt", b"x"), (name, b"evil")), scratch)
    assert "leads out of the folder" in message
    assert "evil.txt" in message


def test_links_and_devices(tmp_path, scratch):
    sources = [zip_of(tmp_path / "link.zip", ("link", b"/etc"), link=True)]
    for number, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)):
        sources.append(tar_of(tmp_path / f"{number}.tar.gz", ("link", b"/etc"), kind=kind))
    for source in sources:
        assert "member link is a link or device" in refusal(source, scratch)


def test_more_bytes_or_files_than_allowed(tmp_path, scratch, monkeypatch):
    source = zip_of(tmp_path / "a.zip", ("a", bytes(600)), ("b", bytes(500)))
    assert "unpacks to more than 1000 bytes" in refusal(source, scratch, max_bytes=1000)
    with open_sources([source], scratch, max_bytes=1100):
        pass
    monkeypatch.setattr("datasets.preparation.sources.MAX_FILES", 1)
    assert "more than 1 files" in refusal(source, scratch)


def test_an_archive_that_unpacks_to_a_hundred_times_its_size_is_refused(tmp_path, scratch, monkeypatch):
    source = zip_of(tmp_path / "bomb.zip", ("zeros", bytes(1_000_000)))
    assert source.stat().st_size < 2000
    with open_sources([source], scratch):  # a small one may
        pass
    monkeypatch.setattr(module, "ALWAYS_ALLOWED", 10_000)
    assert f"unpacks to more than {100 * source.stat().st_size} bytes" in refusal(source, scratch)


def test_a_full_disk_is_not_reported_as_a_damaged_archive(tmp_path, scratch, monkeypatch):
    source = zip_of(tmp_path / "a.zip", ("x.txt", b"x"))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "open", full, raising=False)
    assert "cannot be unpacked in" in (message := refusal(source, scratch))
    assert "No space left on device" in message


def test_damaged_archives(tmp_path, scratch):
    source = zip_of(tmp_path / "flipped.zip", ("a.txt", bytes(range(256)) * 8))
    content = bytearray(source.read_bytes())
    content[60] ^= 0xFF
    source.write_bytes(content)
    assert "not a readable archive" in refusal(source, scratch)
    source = tar_of(tmp_path / "cut.tar.gz", ("a.txt", bytes(range(256)) * 99))
    source.write_bytes(source.read_bytes()[:80])
    assert "not a readable archive" in refusal(source, scratch)
    (tmp_path / "text.zip").write_text("text")
    assert "neither a folder nor a zip or tar archive" in refusal(tmp_path / "text.zip", scratch)
    assert "no such folder or archive" in refusal(tmp_path / "none.zip", scratch)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_with_the_same_name(tmp_path, scratch):
    source = zip_of(tmp_path / "a.zip", ("a.txt", b"1"), ("a.txt", b"2"))
    assert "two members named a.txt" in refusal(source, scratch)
