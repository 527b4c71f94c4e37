"""Downloads from a server on this machine: whole, truncated, tampered, silent and absent."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import pytest
import torch

from checkpointing import download
from checkpointing.published import DOWNLOADS, Download
from main import main

CONTENT = BytesIO()
torch.save({"image_encoder.pos_embed": torch.zeros(1, 4, 4, 8)}, CONTENT)
CONTENT = CONTENT.getvalue()


class Handler(BaseHTTPRequestHandler):
    """/good sends the file, /truncated half of it, /tampered another last byte, /page an error page of status 200."""

    def do_GET(self):
        kind = self.path.split("/")[1]
        if kind == "absent":
            self.send_error(404)
            return
        if kind == "loop":
            self.send_response(302)
            self.send_header("Location", self.path)
            self.end_headers()
            return
        content = {"tampered": CONTENT[:-1] + b"x", "page": b"<html>"}.get(kind, CONTENT)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if kind == "truncated" else content)
        self.server.served.append(self.path)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.served = []
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        httpd.address = f"http://127.0.0.1:{httpd.server_port}"
        yield httpd
        httpd.shutdown()


@pytest.fixture
def publish(server, monkeypatch):
    """Publishes the file under the name "it", with a hash or without, at an address that answers as `kind`."""

    def set_up(kind, **published):
        monkeypatch.setitem(DOWNLOADS, "it", Download(f"{server.address}/{kind}/it_v1.pth", **published))

    return set_up


SHA256, MD5 = hashlib.sha256(CONTENT).hexdigest(), hashlib.md5(CONTENT).hexdigest()
PUBLISHED = {"sha256": {"sha256": SHA256}, "prefix": {"prefix": SHA256[:6]}, "md5 prefix": {"prefix": MD5[:6]}}


def fetch(folder, *more):
    return main(["download", "it", "--output", str(folder), *more])


@pytest.mark.parametrize("known", [*PUBLISHED, "nothing"])
def test_a_good_file_arrives_and_is_not_fetched_again(publish, server, tmp_path, capsys, known):
    publish("good", **PUBLISHED.get(known, {}))
    assert fetch(tmp_path / "weights") == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "weights" / "it_v1.pth")
    assert (tmp_path / "weights" / "it_v1.pth").read_bytes() == CONTENT
    assert fetch(tmp_path / "weights") == 0
    assert len(server.served) == 1


@pytest.mark.parametrize("kind", ["truncated", "tampered", "page"])
@pytest.mark.parametrize("known", [*PUBLISHED, "nothing"])
def test_another_file_is_refused_and_nothing_is_left(publish, tmp_path, capsys, kind, known):
    if (kind, known) == ("tampered", "nothing"):
        pytest.skip("where no hash is published, a file that reads as weights cannot be told from the true one")
    publish(kind, **PUBLISHED.get(known, {}))
    assert fetch(tmp_path) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: http://127.0.0.1")
    assert "sent something other than it" in error
    assert list(tmp_path.iterdir()) == []


def test_an_answer_of_404_says_so(publish, tmp_path, capsys):
    publish("absent", sha256=SHA256)
    assert fetch(tmp_path) == 1
    assert "the server answers 404 Not Found; give a mirror's address with --url" in capsys.readouterr().err


def test_offline_names_the_address_and_the_place(server, tmp_path, monkeypatch, capsys):
    server.shutdown()
    server.server_close()
    monkeypatch.setitem(DOWNLOADS, "it", Download(f"{server.address}/good/it_v1.pth", sha256=SHA256))
    assert fetch(tmp_path) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{server.address}/good/it_v1.pth" in error
    assert f"put it at {tmp_path / 'it_v1.pth'}" in error


def test_a_mirror_serves_the_same_file_and_no_other(publish, server, tmp_path, capsys):
    publish("absent", sha256=SHA256)
    assert fetch(tmp_path, "--url", f"{server.address}/tampered/renamed.pth") == 1
    assert fetch(tmp_path, "--url", f"{server.address}/good/renamed.pth") == 0
    assert (tmp_path / "it_v1.pth").read_bytes() == CONTENT


def test_another_file_of_that_name_is_never_overwritten(publish, tmp_path, capsys):
    publish("good", sha256=SHA256)
    (tmp_path / "it_v1.pth").write_text("mine")
    assert fetch(tmp_path) == 1
    assert "exists, but is not it: its sha256 is" in capsys.readouterr().err
    assert (tmp_path / "it_v1.pth").read_text() == "mine"


def test_what_a_killed_download_left_is_removed_and_a_running_one_is_not(publish, tmp_path):
    import os

    publish("good", sha256=SHA256)
    old, running = tmp_path / ".it_v1.1.tmp.pth.a.partial", tmp_path / ".it_v1.2.tmp.pth.b.partial"
    for path in (old, running):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    assert fetch(tmp_path) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [running.name, "it_v1.pth"]


def test_unknown_names_and_the_list(capsys):
    assert main(["download", "sam_vit_x"]) == 2
    assert "known: sam_vit_b, " in capsys.readouterr().err
    assert main(["download", "--list"]) == 0
    listed = capsys.readouterr().out
    assert "sam_vit_b_01ec64.pth" in listed
    assert "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af" in listed


@pytest.mark.parametrize("name", [name for name in DOWNLOADS if name.startswith("sam_vit")])
def test_sams_hash_prefix_is_the_one_in_its_name(name):
    published = DOWNLOADS[name]
    assert published.file_name.removesuffix(".pth").endswith(f"_{published.prefix}")


def test_a_loop_of_redirections_is_one_line(publish, server, tmp_path, capsys):
    publish("loop", sha256=SHA256)
    assert fetch(tmp_path) == 1
    [error] = capsys.readouterr().err.strip().splitlines()
    assert error == (
        f"error: {server.address}/loop/it_v1.pth: the server answers 302 Found; give a mirror's address with --url"
    )


def test_a_server_cannot_fill_the_disk(publish, server, tmp_path, capsys, monkeypatch):
    publish("good", sha256=SHA256)
    monkeypatch.setattr(download, "MAX_BYTES", 500)
    assert fetch(tmp_path) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error == f"error: {server.address}/good/it_v1.pth: sends more than 500 bytes; nothing was saved, try --url"
    assert not list(tmp_path.iterdir())
