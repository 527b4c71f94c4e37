"""The page: whole in itself, and in headless Chromium without errors, on a desk's width and on a phone's."""

import re
from html.parser import HTMLParser

import pytest

from main import main

# What a browser made of the page, with everything that can be unfolded unfolded.
CHECK = """() => {
  document.querySelectorAll("details").forEach(details => { details.open = true; });
  return {
    images: [...document.images].map(image => image.complete ? image.naturalWidth : 0),
    width: innerWidth,
    content: Math.max(document.documentElement.scrollWidth, document.body.scrollWidth),
    scrolls: [...document.querySelectorAll(".scroll")].filter(box => box.scrollWidth > box.clientWidth).length,
    title: document.title,
  };
}"""
HOSTILE = "<b>set & 'more'"


@pytest.fixture(scope="module")
def page(make_maker, make_workspace, paper, tmp_path_factory):
    """The page of a trained SALT, the paper's rows, several ranks, and a dataset whose name is markup."""
    workspace = make_workspace(tmp_path_factory.mktemp("page"))
    maker = make_maker(workspace.folder / "runs")
    assert main(workspace.train_arguments("runs/trained/m.safetensors")) == 0
    paper.runs(maker, ["unet", "sam_text", "lora_4", "salt_256", "sam2_lora_4", "sam2_salt_4"], images=4)
    for rank in (2, 8):
        ranks = {"svd_rank_linear": 32, "svd_rank_conv2d": 32, "r_lora": rank}
        maker.run("x", HOSTILE, folder=f"ranks/{rank}", sam_type="nano", img_size=64, ranks=ranks)
    (maker.root / "damaged").mkdir()
    (maker.root / "damaged" / "results.json").write_text("{")
    output = workspace.folder / "out"
    assert main(["table", "--runs", str(maker.root), "--output", str(output)]) == 0
    return output / "index.html"


class Elements(HTMLParser):
    """All start tags with their attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_the_page_needs_nothing_but_itself_and_is_accessible(page):
    text = page.read_text(encoding="utf-8")
    elements = Elements(text)
    tags = [tag for tag, _ in elements.tags]
    assert not {"script", "iframe", "object", "embed"} & set(tags)
    for tag, attributes in elements.tags:
        for name in ("src", "href", "srcset"):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, name)
    assert "url(" not in text
    assert "@import" not in text
    assert ("html", {"lang": "en"}) in elements.tags
    assert any(a.get("name") == "viewport" for _, a in elements.tags)
    images = [attributes for tag, attributes in elements.tags if tag == "img"]
    assert len(images) >= 4
    assert all(image["alt"] for image in images)
    assert all(image["src"].startswith("data:image/png;base64,") for image in images)
    assert all(attributes.get("scope") in ("col", "row") for tag, attributes in elements.tags if tag == "th")
    # Figures are there as files, too.
    names = re.findall(r"<b>(\w+)\.pdf</b>", text)
    assert len(names) == len(images)
    for name in names:
        assert (page.parent / "figures" / f"{name}.pdf").is_file()
        assert (page.parent / "figures" / f"{name}.png").is_file()
    assert {"qualitative", "spectra", "curves", "ranks"} <= {name.split("_")[0] for name in names}
    # What came from files is text, not markup.
    assert HOSTILE in elements.text
    assert HOSTILE not in text


def test_the_page_says_what_it_shows_and_what_is_missing(page):
    text = " ".join(Elements(page.read_text(encoding="utf-8")).text.split())
    assert "paper 0.81 +0.012" in text
    assert "UNETR: no run" in text
    assert "damaged/results.json: cannot be read" in text
    assert "of SALT 256 (top 410, neck 256, LoRA 256) against each row" in text
    headings = [
        f"weights after the last epoch (last), at the model's image size{end}" for end in (", as in the paper",)
    ]
    assert all(heading in text for heading in headings)
    assert text.count("Weights of the best epoch (best_val)") == 2


def inspect(chromium, page, width):
    """What CHECK finds in the page, `width` pixels wide, and the errors on the browser's console."""
    tab = chromium.new_page(viewport={"width": width, "height": 900})
    errors = []
    tab.on("console", lambda message: errors.append(message.text))
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(page.as_uri())
    found = tab.evaluate(CHECK)
    tab.close()
    return found, errors


def test_chromium_opens_the_page_without_errors_on_desk_and_phone(page, chromium):
    count = page.read_text(encoding="utf-8").count("<img ")
    for width in (1280, 360):
        found, errors = inspect(chromium, page, width)
        assert errors == []
        assert found["width"] == width
        assert found["content"] <= found["width"]
        assert len(found["images"]) == count
        assert min(found["images"]) > 400
        assert found["title"].startswith("SALT")
    # On the phone, tables and figures scroll in their own boxes.
    assert found["scrolls"] >= 6


def test_the_browser_check_sees_errors_broken_images_and_overflow(chromium, tmp_path):
    page = tmp_path / "bad.html"
    page.write_text(
        "<!DOCTYPE html><html><body><img src='absent.png'><div style='width:900px'>wide</div>"
        "<script>absent()</script></body></html>"
    )
    found, errors = inspect(chromium, page, 360)
    assert any("absent is not defined" in error for error in errors)
    assert found["images"] == [0]
    assert found["content"] > found["width"]
