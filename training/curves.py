"""The training curves of a run: losses, Dice and learning rate per epoch."""

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from training.run_log import read_metrics, scalars
from utils.config.options import EPOCH_CHOSEN_ON, Split
from utils.errors import UserError
from utils.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Panels of the curves: title, and the word that a record's key must hold to be drawn there.
CURVE_PANELS = (("loss", "loss"), ("Dice", "dice"), ("learning rate", "lr"))


def plot_curves(metrics_jsonl: Path, out: Path, val: Split = "val") -> None:
    """Draw losses, Dice and learning rate per epoch from a run's metrics.jsonl to a PNG.

    A number is drawn in the panel whose word is one of the words of its key ("loss/focal", "val/dice", "lr"); "loss"
    goes before "dice". Numbers of other names are left out, and so are panels without a number.

    Args:
        metrics_jsonl: as `RunLog` writes it; a half-written last line is left out.
        out: the PNG; its folder is made if missing. It is replaced only once the new one is whole.
        val: the split that the best epoch is chosen on. For another than val, the title says so.

    Raises:
        UserError: the file is missing or damaged, or holds nothing to draw.
    """
    panels = _curves(read_metrics(metrics_jsonl))
    if not panels:
        raise UserError(f"{metrics_jsonl}: holds no loss, Dice or learning rate to draw; train for an epoch first")
    # Figure with its own Agg canvas, not pyplot: no display, no global state, no figure left open.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8 * len(panels), 4.0), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, curves) in zip(axes, panels.items(), strict=True):
        _draw_panel(axis, title, {_shown(name, val): points for name, points in curves.items()})
    if val != "val":
        figure.suptitle(f"epoch chosen on {EPOCH_CHOSEN_ON[val]}", fontsize="medium")
    with atomic_path(out) as temporary:
        canvas.print_png(str(temporary))


def _curves(records: list[dict]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    panels: dict[str, dict[str, list[tuple[int, float]]]] = {title: defaultdict(list) for title, _ in CURVE_PANELS}
    for record in records:
        for name, value in scalars(record):
            title = next((title for title, word in CURVE_PANELS if word in name.split("/")), None)
            if title is not None:
                panels[title][name].append((record["epoch"], value))
    return {title: curves for title, curves in panels.items() if curves}


def _shown(name: str, val: Split) -> str:
    """A curve's name; what is recorded as val/... is of the split `val`."""
    return f"{EPOCH_CHOSEN_ON[val]}/{name.removeprefix('val/')}" if val != "val" and name.startswith("val/") else name


def _draw_panel(axis: "Axes", title: str, curves: dict[str, list[tuple[int, float]]]) -> None:
    from matplotlib.ticker import MaxNLocator

    for name, points in curves.items():
        epochs, values = zip(*points, strict=True)
        # A lone epoch has no line to draw, so it needs its marker.
        axis.plot(epochs, values, label=name, linewidth=1.6, marker="o" if len(points) < 20 else None, markersize=3.5)
    if title == "Dice":
        axis.set_ylim(0.0, 1.0)
    elif title == "loss":
        _scale_losses(axis, [value for points in curves.values() for _, value in points])
    else:
        axis.ticklabel_format(axis="y", style="scientific", scilimits=(-2, 2))
    axis.set(title=title, xlabel="epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    if len(curves) > 1 or title != "learning rate":
        # Below the panel: inside of it, a legend may lie on a curve.
        columns = 2 if len(curves) > 3 else len(curves)
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=columns, fontsize="small", frameon=False)


def _scale_losses(axis: "Axes", values: list[float]) -> None:
    """Logarithmic where the parts differ a lot: focal is some hundred times smaller than Dice."""
    positive = [value for value in values if value > 0.0]
    if min(values) < 0.0 or not positive or max(positive) < 20.0 * min(positive):
        return
    axis.set_yscale("log")
    # A regularizer that starts at almost nothing would else squeeze all the rest to a line.
    axis.set_ylim(bottom=max(min(positive) / 1.5, max(positive) * 1e-4))
