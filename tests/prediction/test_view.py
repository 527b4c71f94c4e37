"""The page to look at results: what it draws, and the whole of it in a headless browser."""

import io
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation.threshold import Threshold
from main import main
from model import load_model
from prediction.interaction import Prompt
from prediction.view import HOST
from prediction.viewed import Viewed, clicked, pictures, view_file
from utils.config.evaluation import EvaluationConfig
from utils.drawing import label_colour
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def test_the_threshold_draws_the_mask_anew():
    logits = torch.logit(torch.linspace(0, 1, 100).reshape(10, 10))
    viewed = Viewed(np.zeros((10, 10, 3), np.uint8), [logits, -logits], "**a.png**, 10 x 10 pixels")
    note, image, mask, overlay, other, _ = pictures(viewed, Threshold(0.5), 2)
    assert note == "**a.png**, 10 x 10 pixels. Mask: 50.0%, 50.0% of it. Dice between the two: 0.000."
    settings = EvaluationConfig(metrics=["dice", "accuracy", "cldice", "ece"])
    note = pictures(viewed, Threshold(0.9), 2, settings)[0]
    assert note.endswith("Dice between the two: 0.000. The first against the second: Accuracy 0.800, clDice 0.000.")
    assert image.shape == overlay.shape == (10, 10, 3)
    assert np.array_equal(mask, 255 - other)
    assert (pictures(viewed, Threshold(0.9), 2)[2] > 0).sum() == 10
    assert (overlay[mask > 0] > 0).any(axis=1).all()
    assert pictures(None, Threshold(0.5), 2) == ["", None, None, None, None, None]


def test_a_label_has_its_own_colour():
    viewed = Viewed(np.zeros((10, 10, 3), np.uint8), [torch.ones(10, 10)], "a", label=1)
    overlay = pictures(viewed, Threshold(0.5), 1)[3]
    assert np.allclose(overlay, 0.45 * np.array(label_colour(1)), atol=1)


def test_a_threshold_of_two_numbers_draws_what_predict_writes():
    logits = torch.full((10, 10), -9.0)
    logits[0, :4] = torch.tensor([1.0, 3.0, 1.0, -1.0])
    logits[5, 5] = 1.0  # above the lower one, and connected to nothing
    viewed = Viewed(np.zeros((10, 10, 3), np.uint8), [logits], "a")
    assert (pictures(viewed, Threshold(0.9, 0.6), 1)[2] > 0).sum() == 3
    assert (pictures(viewed, Threshold(0.6), 1)[2] > 0).sum() == 4


def test_large_images_are_shown_smaller():
    viewed = Viewed(np.zeros((3000, 1000, 3), np.uint8), [torch.zeros(3000, 1000)], "a")
    assert [picture.shape[:2] for picture in pictures(viewed, Threshold(0.5), 1)[1:]] == [(1600, 533)] * 3


def test_a_file_is_read_as_predict_reads_it(sam_weights, tmp_path):
    values = np.random.default_rng(0).integers(0, 65535, (30, 40), dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    predictor = load_model(sam_weights)
    viewed = view_file(tmp_path / "deep.png", [predictor], "Vein", flips=False, tile=False)
    assert np.array_equal(torch.sigmoid(viewed.logits[0]), predictor.probabilities(values, "Vein"))
    assert viewed.note == "**deep.png**, 40 x 30 pixels"
    assert viewed.image.dtype == np.uint8


def test_clicks_take_the_place_of_the_text_and_are_drawn(sam_weights, tmp_path):
    """Places are shares of the sides, since a large picture is shown smaller."""
    image = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "eye.png")
    predictor = load_model(sam_weights)
    viewed = view_file(tmp_path / "eye.png", [predictor], "Vein", flips=False, tile=False)
    clicks = [(0.25, 0.5, True), (0.75, 0.1, False)]
    again = clicked(clicked(viewed, clicks[:1], [predictor]), clicks, [predictor])
    prompt = Prompt([(10.0, 15.0, True), (30.0, 3.0, False)])
    assert np.array_equal(again.logits[0] > 0, predictor.predict(image, "Vein", prompt=prompt))
    assert not np.array_equal(again.logits[0], viewed.logits[0])
    note, picture, mask, overlay = pictures(again, Threshold(0.5), 1)
    assert note.endswith("% of it. Clicks: 2, 1 of them negative.")
    for drawn in (picture, overlay):
        assert drawn[15, 10].tolist() == [60, 220, 60]
        assert drawn[3, 30].tolist() == [240, 50, 50]
    assert set(np.unique(mask)) <= {0, 255}


def test_a_model_of_clicks_waits_for_the_first(make_weights, tmp_path):
    Image.fromarray(np.zeros((30, 40), np.uint8)).save(tmp_path / "eye.png")
    predictor = load_model(make_weights("sam", ("Vein",), ("prompts.type=points",)))
    viewed = view_file(tmp_path / "eye.png", [predictor], "Vein", flips=False, tile=False)
    assert not (viewed.logits[0] > 0).any()
    assert clicked(viewed, [(0.5, 0.5, True)], [predictor]).logits[0].isfinite().all()


def test_a_network_without_prompts_names_what_it_lacks(make_weights, tmp_path):
    Image.fromarray(np.zeros((30, 40), np.uint8)).save(tmp_path / "eye.png")
    predictor = load_model(make_weights("unet"))
    viewed = view_file(tmp_path / "eye.png", [predictor], "Vein", flips=False, tile=False)
    with pytest.raises(UserError, match="it is no SAM"):
        clicked(viewed, [(0.5, 0.5, True)], [predictor])


def test_without_gradio_the_extra_is_named(sam_weights, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["view", "--checkpoint", str(sam_weights), "--device", "cpu"]) == 1
    assert "main.py view needs the package gradio" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http"])
def test_a_port_out_of_range_is_refused(capsys, port):
    assert main(["view", "--checkpoint", "absent.safetensors", f"--port={port}"]) == 2
    assert f"must be a port from 1 to 65535, not '{port}'" in capsys.readouterr().err


def test_a_port_that_is_taken_is_one_line(sam_weights, capsys):
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["view", "--checkpoint", str(sam_weights), "--device", "cpu", "--port", str(port)]) == 1
    assert f"error: --port {port}: cannot be used (Address already in use); give another" in capsys.readouterr().err


@pytest.fixture
def served(make_weights, sam_weights):
    """The address of the page that the real command serves for two checkpoints."""
    pytest.importorskip("gradio", reason="the optional package gradio is not installed")
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    other = make_weights("sam2")
    arguments = ["view", "--checkpoint", str(sam_weights), "--compare", str(other), "--port", str(port)]
    command = [sys.executable, "main.py", *arguments, "--device", "cpu"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
    )
    try:
        _wait_for_page(process, port)
        yield port
        process.send_signal(signal.SIGINT)
        assert process.wait(120) in (0, 3)
    finally:
        process.kill()


def _wait_for_page(process, port):
    import time

    for _ in range(600):
        assert process.poll() is None, process.stdout.read()
        try:
            urllib.request.urlopen(f"http://{HOST}:{port}", timeout=10).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise AssertionError("the page never came")


@pytest.mark.slow
def test_the_page_in_a_browser(served, chromium, tmp_path):
    """Upload, wait, the masks appear; the threshold moves them; a bad file is named; nothing goes to another host."""
    from playwright.sync_api import expect

    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(tmp_path / "eye.png")
    (tmp_path / "bad.png").write_text("no image")
    page = chromium.new_page()
    page.set_default_timeout(120_000)
    expect.set_options(timeout=120_000)
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(f"http://{HOST}:{served}")
    page.set_input_files("#upload input[type=file]", tmp_path / "eye.png")
    for place in ("mask0", "overlay0", "mask1", "overlay1", "image"):
        expect(page.locator(f"#{place} img")).to_have_js_property("naturalWidth", 80)
    note = page.locator("#note").inner_text()
    assert note.startswith("eye.png, 80 x 60 pixels. Mask: ")
    assert "Dice between the two: " in note
    page.fill("#threshold input[type=number]", "0.99")
    page.press("#threshold input[type=number]", "Tab")
    expect(page.locator("#note")).not_to_have_text(note)
    page.locator("#upload button[aria-label]").first.click()
    expect(page.locator("#mask0 img")).to_have_count(0)
    page.set_input_files("#upload input[type=file]", tmp_path / "bad.png")
    expect(page.get_by_text("bad.png: not a readable image").first).to_be_visible()
    hosts = {address.split("/")[2] for address in requests if address.startswith("http")}
    assert hosts == {f"{HOST}:{served}"}


@pytest.mark.slow
def test_clicks_in_a_browser(served, chromium, tmp_path):
    """A left click is positive, a right click and one with shift are negative, where they were made."""
    from playwright.sync_api import expect

    values = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "eye.png")
    page = chromium.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(120_000)
    expect.set_options(timeout=120_000)
    page.goto(f"http://{HOST}:{served}")
    page.set_input_files("#upload input[type=file]", tmp_path / "eye.png")
    note, image = page.locator("#note"), page.locator("#image img")
    expect(image).to_have_js_property("naturalWidth", 80)
    alone = note.inner_text()

    def click(place, share, **how):
        box = page.locator(f"#{place} img").bounding_box()
        scale = min(box["width"] / 80, box["height"] / 60)
        left, top = (box["width"] - 80 * scale) / 2, (box["height"] - 60 * scale) / 2
        position = {"x": left + share[0] * 80 * scale, "y": top + share[1] * 60 * scale}
        page.locator(f"#{place} img").click(position=position, force=True, **how)

    click("image", (0.25, 0.5))
    expect(note).to_contain_text("Clicks: 1, 0 of them negative.")
    expect(image).to_have_js_property("complete", True)
    shown = Image.open(io.BytesIO(page.request.get(image.get_attribute("src")).body())).convert("RGB")
    assert (60, 220, 60) in {shown.getpixel((20, row)) for row in (29, 30, 31)}  # browsers round to their own pixels
    click("overlay0", (0.75, 0.5), button="right")
    expect(note).to_contain_text("Clicks: 2, 1 of them negative.")
    click("image", (0.5, 0.9), modifiers=["Shift"])
    expect(note).to_contain_text("Clicks: 3, 2 of them negative.")
    click("mask0", (0.5, 0.5))  # no place to click
    page.locator("#undo").click()
    expect(note).to_contain_text("Clicks: 2, 1 of them negative.")
    page.locator("#clear").click()
    expect(note).to_have_text(alone)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="open ports are read from /proc")
def test_it_listens_on_this_machine_alone(served):
    listening = [
        line.split() for path in ("tcp", "tcp6") for line in Path(f"/proc/net/{path}").read_text().splitlines()
    ]
    hosts = {row[1].split(":")[0] for row in listening[1:] if row[1].endswith(f":{served:04X}") and row[3] == "0A"}
    assert hosts == {"0100007F"}  # 127.0.0.1


@pytest.mark.slow
def test_only_this_machines_names_are_answered(served):
    """A site whose name leads to 127.0.0.1 must not read the page in its visitor's browser."""
    for host, status in ((HOST, 200), ("localhost", 200), ("evil.example", 400), (f"{HOST}.evil.example", 400)):
        request = urllib.request.Request(f"http://{HOST}:{served}/", headers={"Host": f"{host}:{served}"})
        assert _status(request) == status, host


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda number: number.name)
def test_uploads_are_removed_and_too_large_ones_refused(sam_weights, tmp_path, number):
    pytest.importorskip("gradio", reason="the optional package gradio is not installed")
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    limited = "import sys, prediction.view as view; view.MAX_FILE_SIZE = 1000; from main import main; "
    command = [sys.executable, "-c", f"{limited}sys.exit(main(sys.argv[1:]))", "view", "--checkpoint", str(sam_weights)]
    process = subprocess.Popen(
        [*command, "--port", str(port), "--device", "cpu"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    try:
        _wait_for_page(process, port)
        assert _upload(port, b"x" * 500) == 200
        assert [path.read_bytes() for path in tmp_path.rglob("eye.png")] == [b"x" * 500]
        assert _upload(port, b"x" * 5000) != 200
        process.send_signal(number)
        process.communicate(timeout=60)
        assert process.returncode in (0, 3)
        assert not list(tmp_path.glob("salt_view_*"))
    finally:
        process.kill()


def _upload(port, content):
    """The HTTP status of an upload by Gradio's own address."""
    body = (
        b'--b\r\nContent-Disposition: form-data; name="files"; filename="eye.png"\r\n\r\n' + content + b"\r\n--b--\r\n"
    )
    request = urllib.request.Request(
        f"http://{HOST}:{port}/gradio_api/upload", body, {"Content-Type": "multipart/form-data; boundary=b"}
    )
    return _status(request)


def _status(request):
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.slow
@pytest.mark.parametrize(("width", "columns"), [(1280, 3), (400, 1)])
def test_the_page_at_two_widths(served, chromium, tmp_path, width, columns):
    """The page fills the window before an image is dropped, and no title lies on a picture."""
    from playwright.sync_api import expect

    page = chromium.new_page(viewport={"width": width, "height": 900})
    page.goto(f"http://{HOST}:{served}")
    expect(page.locator("#mask0")).to_be_visible(timeout=120_000)
    container = page.locator(".gradio-container").first.bounding_box()
    assert container["width"] >= 0.95 * width
    lefts = {round(page.locator(f"#{place}").bounding_box()["x"]) for place in ("upload", "mask0", "overlay0")}
    assert len(lefts) == columns
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for place in ("mask0", "overlay0"):
        title = page.locator(f"#{place} label").first.bounding_box()  # Gradio's own, for screen readers alone
        assert title is None or title["height"] <= 1
