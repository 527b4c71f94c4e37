"""An archive that is not the official one is used, with a warning that names both digests."""

import hashlib

import pytest

from datasets.converters.table import CONVERTERS
from datasets.preparation.digests import check_digest

CONTENT = b"the official archive"
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
MD5 = f"md5:{hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()}"


@pytest.mark.parametrize(
    ("name", "official"),
    [
        ("a.zip", {"a.zip": SHA256}),
        ("a.zip", {"a.zip": MD5}),
        ("renamed.zip", {"a.zip": SHA256, "b.zip": "sha256:" + "0" * 64}),
        ("a.zip", {}),
    ],
)
def test_the_official_archive_gives_no_warning(tmp_path, caplog, name, official):
    (tmp_path / name).write_bytes(CONTENT)
    check_digest(tmp_path / name, official)
    assert caplog.records == []


@pytest.mark.parametrize("name", ["a.zip", "renamed.zip"])
@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_another_archive_gives_a_warning(tmp_path, caplog, name, kind):
    expected = f"{kind}:" + "0" * 32
    (tmp_path / name).write_bytes(CONTENT)
    check_digest(tmp_path / name, {"a.zip": expected})
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    message = record.getMessage()
    assert {"sha256": SHA256, "md5": MD5}[kind].partition(":")[2] in message
    assert "0" * 32 in message
    assert name in message


def test_an_archive_with_the_name_of_another_gives_a_warning(tmp_path, caplog):
    (tmp_path / "a.zip").write_bytes(CONTENT)
    check_digest(tmp_path / "a.zip", {"a.zip": "sha256:" + "0" * 64, "b.zip": SHA256})
    assert len(caplog.records) == 1


def test_the_known_digests_are_well_formed():
    found = {file: digest for converter in CONVERTERS.values() for file, digest in converter.digests.items()}
    assert set(found) == {"training.zip", "test.zip", "DB_Angiograms_134.zip", "arcade.zip", "DIAS.zip"}
    for digest in found.values():
        kind, _, value = digest.partition(":")
        assert len(bytes.fromhex(value)) == {"sha256": 32, "md5": 16}[kind]
