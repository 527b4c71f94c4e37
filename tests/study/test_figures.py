"""What becomes of a figure's colours on its way into the page."""

from itertools import pairwise

import numpy as np
from PIL import Image

from report.drawing import COLOURS, figure, line_style
from study.figures import save_for_page


def test_every_lines_colour_is_in_the_picture(tmp_path):
    """Also that of a short line among many tones."""
    with figure(6, 4) as drawing:
        axis = drawing.subplots()
        for index in range(len(COLOURS)):
            axis.plot([0, 0.02 + (index == 0)], [index, index + 0.01], linewidth=1.2, **line_style(index))
        axis.imshow(np.random.default_rng(0).random((200, 200, 3)), extent=(0, 1, 10, 20), aspect="auto")
        axis.set_xlim(0, 1)
        axis.set_ylim(-1, 20)
        save_for_page(drawing, tmp_path / "lines.png")
    with Image.open(tmp_path / "lines.png") as picture:
        tones = {tone for _, tone in picture.convert("RGB").getcolors(2**24)}
    wanted = {tuple(bytes.fromhex(colour[1:])) for colour in COLOURS}
    assert wanted <= tones


def test_lines_differ_in_their_dashes_too():
    """A print without colours tells neighbours apart, and no two of the first 32 lines look the same."""
    styles = [line_style(index) for index in range(32)]
    assert all(a["linestyle"] != b["linestyle"] for a, b in pairwise(styles))
    assert len({tuple(style.values()) for style in styles}) == 32
