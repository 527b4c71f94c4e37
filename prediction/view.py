"""Serves a page: drop an image, see mask and overlay, click on it, move the threshold, compare two checkpoints.

Gradio (an optional package) serves it to this machine only. Nothing is sent elsewhere, and dropped images are deleted
when the command ends.
"""

import json
import logging
import os
import socket
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.threshold import Threshold
from prediction.predictor import Predictor
from prediction.viewed import Click, Viewed, clicked, pictures, view_file
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
_CSS = """
.gradio-container {width: 100% !important; max-width: 1280px !important; margin: auto}
#title h1 {margin-bottom: 0}
.picture-title p {margin: 0; font-weight: 600}
.clickable img {cursor: crosshair}
#click {display: none}
"""
# Gradio tells where an image was clicked, but neither the button nor the shift key. The place goes, as a share of the
# image's sides, into a text field that nobody sees. `contain` may leave room around the image in its element.
_SCRIPT = """
() => {
  let count = 0;
  const send = (event, positive) => {
    const image = event.target;
    const field = document.querySelector("#click textarea, #click input");
    if (!field || !(image instanceof HTMLImageElement) || !image.closest(".clickable")) return;
    event.preventDefault();
    event.stopPropagation();
    const box = image.getBoundingClientRect();
    const scale = Math.min(box.width / image.naturalWidth, box.height / image.naturalHeight);
    const [width, height] = [image.naturalWidth * scale, image.naturalHeight * scale];
    const x = (event.clientX - box.left - (box.width - width) / 2) / width;
    const y = (event.clientY - box.top - (box.height - height) / 2) / height;
    if (x < 0 || y < 0 || x >= 1 || y >= 1) return;
    field.value = JSON.stringify([x, y, positive, count++]);
    field.dispatchEvent(new Event("input", {bubbles: true}));
  };
  document.addEventListener("click", (event) => send(event, !event.shiftKey), true);
  document.addEventListener("contextmenu", (event) => send(event, false), true);
}
"""


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
            js=_SCRIPT,
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

    start, flipped = predictors[0].threshold, predictors[0].evaluation.flips

    def predict(file: str | None, label: str, flips: bool, tile: bool) -> Viewed | None:
        if not file:
            return None
        try:
            # Untouched, each checkpoint predicts as its own config says.
            return view_file(Path(file), predictors, label, None if flips == flipped else flips, tile)
        except UserError as error:
            raise gr.Error(str(error).replace(file, Path(file).name), print_exception=False) from error

    def click(place: str, viewed: Viewed | None) -> Viewed | None:
        if viewed is None or not place:
            return viewed
        x, y, positive, _ = json.loads(place)
        return shown_again(viewed, [*viewed.clicks, (float(x), float(y), bool(positive))])

    def undo(viewed: Viewed | None, *settings: Any) -> Viewed | None:
        if viewed is None or len(viewed.clicks) <= 1:
            return predict(*settings)
        return shown_again(viewed, viewed.clicks[:-1])

    def shown_again(viewed: Viewed, clicks: Sequence[Click]) -> Viewed:
        try:
            return clicked(viewed, clicks, predictors)
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from error

    def draw(viewed: Viewed | None, high: float) -> list:
        threshold = start if high == start.high else Threshold(high)  # the checkpoint's may be of two numbers
        return pictures(viewed, threshold, len(predictors), predictors[0].evaluation)

    with gr.Blocks(title="SALT", analytics_enabled=False) as page:
        gr.Markdown("# SALT\nDrop an image to segment it. Nothing leaves this machine.", elem_id="title")
        viewed = gr.State(None)
        with gr.Row():
            with gr.Column(scale=1, min_width=260):
                file = gr.File(label="Image: PNG, JPEG, TIFF, DICOM, ...", height=140, elem_id="upload")
                label = gr.Dropdown(labels, value=labels[0], label="Label", visible=len(labels) > 1)
                threshold = gr.Slider(0.01, 0.99, value=start.high, step=0.01, label="Threshold", elem_id="threshold")
                flips = gr.Checkbox(flipped, label="Average over mirror images", info="slower, often better")
                tile = gr.Checkbox(label="Sliding window", info="for images far larger than the model's")
                note = gr.Markdown(elem_id="note")
                image = _picture("Image", "image", clickable=True)
                on_clicks = "Click on what belongs to the label; right click, or shift and click, on what does not."
                takes_clicks = not any(predictor.sees_windows for predictor in predictors)
                gr.Markdown(on_clicks if takes_clicks else "This model sees windows: it takes no clicks.")
                with gr.Row(visible=takes_clicks):
                    back = gr.Button("Undo click", size="sm", elem_id="undo")
                    clear = gr.Button("Clear clicks", size="sm", elem_id="clear")
                place = gr.Textbox(elem_id="click")
            with gr.Column(scale=3):
                shown = []
                for index, name in enumerate(names):
                    with gr.Row():
                        for kind in ("mask", "overlay"):
                            shown.append(_picture(f"{name}: {kind}", f"{kind}{index}", clickable=kind == "overlay"))
        outputs = [note, image, *shown]
        settings = [file, label, flips, tile]
        changed = [file.change, label.change, flips.change, tile.change, clear.click]
        gr.on(changed, predict, settings, viewed).then(draw, [viewed, threshold], outputs)
        place.change(click, [place, viewed], viewed).then(draw, [viewed, threshold], outputs)
        back.click(undo, [viewed, *settings], viewed).then(draw, [viewed, threshold], outputs)
        threshold.change(draw, [viewed, threshold], outputs, show_progress="hidden", trigger_mode="always_last")
    return page


def _picture(title: str, elem_id: str, clickable: bool = False) -> "Picture":
    """A picture with its title above it: Gradio's own label lies on the picture and covers a small one."""
    import gradio as gr

    with gr.Column(min_width=240):
        gr.Markdown(title, elem_classes="picture-title")
        return gr.Image(
            label=title, show_label=False, interactive=False, format="png", buttons=["download", "fullscreen"],
            elem_id=elem_id, elem_classes="clickable" if clickable else None,
        )  # fmt: skip


def _short_name(path: Path, among: Sequence[Path]) -> str:
    """The file's name; with its folder's name if there are two checkpoints."""
    return f"{path.parent.name}/{path.stem}" if len(among) > 1 else path.stem
