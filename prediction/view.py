"""Serves a page: drop an image, see mask and overlay, move the threshold, compare two checkpoints.

Gradio (an optional package) serves it to this machine only. Nothing is sent elsewhere, and dropped images are deleted
when the command ends.
"""

import logging
import os
import socket
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from evaluation.metrics import PAPER_METRICS, dice, score_pair
from evaluation.names import metric_of
from prediction.predictor import Predictor
from prediction.sources import Source
from utils.config.evaluation import EvaluationConfig
from utils.drawing import draw_masks
from utils.errors import UserError
from utils.extras import extra

if TYPE_CHECKING:
    from gradio import Blocks
    from gradio import Image as Picture

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
# Another name in a request's Host header is another site's, whose name leads to this machine: DNS rebinding.
_ALLOWED_HOSTS = [HOST, "localhost"]
MAX_FILE_SIZE = "512mb"  # a 16-bit image of MAX_PIXELS pixels in colour
_LONGEST_SHOWN = 1600  # pixels; a browser gains nothing from more
_CSS = """
.gradio-container {width: 100% !important; max-width: 1280px !important; margin: auto}
#title h1 {margin-bottom: 0}
.picture-title p {margin: 0; font-weight: 600}
"""


@dataclass(frozen=True)
class Viewed:
    """An image and its probabilities, kept while the threshold moves.

    image: (H, W, 3) uint8. probabilities: (H, W) float32, one a checkpoint. label: its place among the labels, which
    decides its colour.
    """

    image: np.ndarray
    probabilities: list[np.ndarray]
    note: str
    label: int = 0


def serve(checkpoints: Sequence[Path], predictors: Iterable[Predictor], port: int) -> None:
    """Serves the page for one or two checkpoints on http://127.0.0.1:`port` until Ctrl-C.

    Args:
        predictors: one per checkpoint; a generator may load them, since nothing is taken from it before Gradio is
            imported.

    Raises:
        UserError: the port is taken; Gradio is missing; a checkpoint that cannot be loaded; two that share no label.
    """
    _check_port(port)
    with tempfile.TemporaryDirectory(prefix="salt_view_") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        gradio = extra("gradio", "main.py view")
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware

        page = build_page([_short_name(path, checkpoints) for path in checkpoints], list(predictors))
        logging.getLogger("httpx").setLevel(logging.WARNING)  # Gradio's own first request to itself
        log.info("open http://%s:%d in a browser; Ctrl-C ends it", HOST, port)
        # System fonts: the theme's own come from another server.
        theme = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
        page.launch(
            server_name=HOST,
            server_port=port,
            max_file_size=MAX_FILE_SIZE,
            app_kwargs={"middleware": [Middleware(TrustedHostMiddleware, allowed_hosts=_ALLOWED_HOSTS)]},
            share=False,
            inbrowser=False,
            quiet=True,
            footer_links=[],
            theme=theme,
            css=_CSS,
        )


def _check_port(port: int) -> None:
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            free.bind((HOST, port))
        except OSError as error:
            raise UserError(f"--port {port}: cannot be used ({error.strerror}); give another") from error


def build_page(names: Sequence[str], predictors: Sequence[Predictor]) -> "Blocks":
    """The page for one checkpoint or for two side by side. Raises: UserError where two share no label."""
    import gradio as gr

    labels = [label for label in predictors[0].labels if all(label in other.labels for other in predictors)]
    if not labels:
        raise UserError(f"{' and '.join(names)}: have no label in common")

    start = predictors[0].threshold.high

    def predict(file: str | None, label: str, flips: bool, tile: bool) -> Viewed | None:
        if not file:
            return None
        try:
            return view_file(Path(file), predictors, label, flips, tile)
        except UserError as error:
            raise gr.Error(str(error).replace(file, Path(file).name), print_exception=False) from error

    def draw(viewed: Viewed | None, threshold: float) -> list:
        return pictures(viewed, threshold, len(predictors), predictors[0].evaluation)

    with gr.Blocks(title="SALT", analytics_enabled=False) as page:
        gr.Markdown("# SALT\nDrop an image to segment it. Nothing leaves this machine.", elem_id="title")
        viewed = gr.State(None)
        with gr.Row():
            with gr.Column(scale=1, min_width=260):
                file = gr.File(label="Image: PNG, JPEG, TIFF, DICOM, ...", height=140, elem_id="upload")
                label = gr.Dropdown(labels, value=labels[0], label="Label", visible=len(labels) > 1)
                threshold = gr.Slider(0.01, 0.99, value=start, step=0.01, label="Threshold", elem_id="threshold")
                flips = gr.Checkbox(label="Average over mirror images", info="slower, often a little better")
                tile = gr.Checkbox(label="Sliding window", info="for images far larger than the model's")
                note = gr.Markdown(elem_id="note")
                image = _picture("Image", "image")
            with gr.Column(scale=3):
                shown = []
                for index, name in enumerate(names):
                    with gr.Row():
                        shown += [_picture(f"{name}: {kind}", f"{kind}{index}") for kind in ("mask", "overlay")]
        outputs = [note, image, *shown]
        changed = [file.change, label.change, flips.change, tile.change]
        gr.on(changed, predict, [file, label, flips, tile], viewed).then(draw, [viewed, threshold], outputs)
        threshold.change(draw, [viewed, threshold], outputs, show_progress="hidden", trigger_mode="always_last")
    return page


def _picture(title: str, elem_id: str) -> "Picture":
    """A picture with its title above it: Gradio's own label lies on the picture and covers a small one."""
    import gradio as gr

    with gr.Column(min_width=240):
        gr.Markdown(title, elem_classes="picture-title")
        return gr.Image(
            label=title, show_label=False, interactive=False, format="png", buttons=["download", "fullscreen"],
            elem_id=elem_id,
        )  # fmt: skip


def view_file(path: Path, predictors: Sequence[Predictor], label: str, flips: bool, tile: bool) -> Viewed:
    """Reads and predicts one file, of a DICOM file the first frame. Raises: UserError that names it."""
    source = Source(path, Path(path.stem))
    frames = len(source.stems())
    images = [next(source.images(predictor.transform)) for predictor in predictors]  # each has its own window
    found = [
        predictor.probabilities(image, label, tile=tile, flips=flips)
        for predictor, image in zip(predictors, images, strict=True)
    ]
    shown = predictors[0].shown(images[0])
    height, width = shown.shape[:2]
    size = f"{width} x {height} pixels" + (f", frame 1 of {frames}" if frames > 1 else "")
    return Viewed(shown, found, f"**{path.name}**, {size}", predictors[0].labels.index(label))


def pictures(
    viewed: Viewed | None, threshold: float, checkpoints: int, settings: EvaluationConfig | None = None
) -> list:
    """Note (Markdown), image, and mask and overlay of each checkpoint; empty values without an image."""
    if viewed is None:
        return ["", None] + [None, None] * checkpoints
    masks = [probability > threshold for probability in viewed.probabilities]
    note = f"{viewed.note}. Mask: {', '.join(f'{100 * mask.mean():.1f}%' for mask in masks)} of it."
    if len(masks) == 2:
        note += f" Dice between the two: {dice(*masks):.3f}."
        others = [name for name in settings.metrics if name not in PAPER_METRICS] if settings else []
        if others and settings:
            found = score_pair(masks[0], masks[1], others, nsd_tolerance=settings.nsd_tolerance).others
            shown = {metric_of(name): value for name, value in found.items() if value is not None}
            words = ", ".join(f"{metric.name} {metric.text(value)}" for metric, value in shown.items())
            note += f" The first against the second: {words}."
    drawn = []
    for mask in masks:
        overlay = draw_masks(viewed.image, mask[None], first=viewed.label)
        drawn += [_reduced(mask.astype(np.uint8) * 255), _reduced(overlay)]
    return [note, _reduced(viewed.image), *drawn]


def _reduced(image: np.ndarray) -> np.ndarray:
    """At most `_LONGEST_SHOWN` pixels long."""
    picture = Image.fromarray(image)
    picture.thumbnail((_LONGEST_SHOWN, _LONGEST_SHOWN), Image.Resampling.BOX)
    return np.asarray(picture)


def _short_name(path: Path, among: Sequence[Path]) -> str:
    """The file's name; with its folder's name if there are two checkpoints."""
    return f"{path.parent.name}/{path.stem}" if len(among) > 1 else path.stem
