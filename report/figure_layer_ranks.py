"""The ranks that a rule chose for each layer (`ft.rank_rule`), by depth and kind of layer."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from report.drawing import PAGE_WIDTH, Drawn, figure, line_style, save
from report.gather import Run
from report.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLES = {"svd_rank": "singular values that are scaled", "r_lora": "rank of the low-rank update"}
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")

# By kind of layer, such as "attn.qkv": (depth, ranks of the layer).
Kinds = dict[str, list[tuple[int, Mapping[str, int]]]]


def draw_layer_ranks(table: Table, folder: Path) -> Drawn:
    """One figure for each row and dataset whose run says its layers' ranks: the run with the lowest seed."""
    drawn = Drawn()
    for suffix, section in table.numbered_sections():
        for row in section.rows:
            for column in section.columns:
                runs = [run for run in row.cells[column].runs if run.results.layer_ranks]
                if runs:
                    run = min(runs, key=lambda run: run.results.seed)
                    _draw(run, f"{row.label}, {column}", folder, f"layer_ranks_{row.label}_{column}{suffix}", drawn)
    return drawn


def by_kind(ranks: Mapping[str, Mapping[str, int]]) -> Kinds:
    """The ranks of the layers by kind; depths are those of the encoder's blocks, the neck's layers follow the last."""
    kinds: Kinds = {}
    blocks = {name: match for name in ranks if (match := _BLOCK.search(name))}
    after = max((int(match[1]) for match in blocks.values()), default=-1) + 1
    for name, of_layer in ranks.items():
        match = blocks.get(name)
        depth, kind = (int(match[1]), match[2]) if match else (after, name.removeprefix("image_encoder."))
        kinds.setdefault(kind, []).append((depth, of_layer))
    return kinds


def _draw(run: Run, title: str, folder: Path, name: str, drawn: Drawn) -> None:
    kinds = by_kind(run.results.layer_ranks)
    shown = [key for key in TITLES if any(key in ranks for of_kind in kinds.values() for _, ranks in of_kind)]
    with figure(PAGE_WIDTH, 3.0) as drawing:
        axes = drawing.subplots(1, len(shown), squeeze=False)[0]
        for axis, key in zip(axes, shown, strict=True):
            for index, (kind, layers) in enumerate(kinds.items()):
                points = [(depth, ranks[key]) for depth, ranks in layers if key in ranks]
                axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=kind, **line_style(index))
            _finish(axis, TITLES[key])
        handles, labels = axes[0].get_legend_handles_labels()
        drawing.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)), frameon=False)
        sums = ", ".join(f"{TITLES[key]}: {sum(r[key] for r in run.results.layer_ranks.values())}" for key in shown)
        drawn.pictures.append(
            save(
                drawing, folder, name, f"Ranks by layer: {title}",
                f"{title}, seed {run.results.seed}: the ranks that ft.rank_rule {run.results.ranks.get('rank_rule')} "
                f"gave each adapted layer, by the block of the encoder and the kind of layer. Over all layers: {sums}.",
                f"Line plots of ranks over the depth of the encoder for {', '.join(labels)}. Over all layers: {sums}",
            )
        )  # fmt: skip


def _finish(axis: "Axes", title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set(title=title, xlabel="block of the encoder; its neck follows", ylabel="rank")
    axis.set_ylim(0, max(1.0, axis.get_ylim()[1]))
    for of_axis in (axis.xaxis, axis.yaxis):
        of_axis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(True)
