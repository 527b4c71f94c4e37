"""Runs whose ranks a rule chose: their row, its label, and the figure of the ranks by depth and kind of layer."""

import matplotlib.axes
import pytest

from report.figure_layer_ranks import by_kind, draw_layer_ranks
from report.figure_ranks import draw_rank_scatter
from report.gather import gather
from report.table import build_table

LAYERS = {
    f"image_encoder.blocks.{depth}.{kind}": {"svd_rank": 10 * depth + place, "r_lora": 4 - depth}
    for depth in (0, 1, 2)
    for place, kind in enumerate(("attn.qkv", "mlp.lin1"))
} | {"image_encoder.neck.0": {"svd_rank": 7, "r_lora": 1}}
ENERGY = {"rank_rule": "energy", "rank_energy": 0.9, "r_lora": 4}
PRUNE = {"rank_rule": "prune", "svd_rank_linear": 32, "svd_rank_conv2d": 32, "r_lora": 8, "rank_budget": 0.02}


def table_of(maker):
    return build_table(gather(maker.root).runs, "last", "img_size")


def test_layers_by_kind_and_depth():
    kinds = by_kind(LAYERS)
    assert list(kinds) == ["attn.qkv", "mlp.lin1", "neck.0"]
    assert [(depth, ranks["svd_rank"]) for depth, ranks in kinds["mlp.lin1"]] == [(0, 1), (1, 11), (2, 21)]
    assert kinds["neck.0"] == [(3, {"svd_rank": 7, "r_lora": 1})]


def test_the_figure_shows_each_kind(maker, tmp_path, monkeypatch):
    lines = []
    plain = matplotlib.axes.Axes.plot

    def plot(axis, *points, label=None, **style):
        lines.append((axis.get_subplotspec().colspan.start, label, *map(tuple, points)))
        return plain(axis, *points, label=label, **style)

    monkeypatch.setattr(matplotlib.axes.Axes, "plot", plot)
    maker.run("energy", ranks=ENERGY, layer_ranks=LAYERS, seed=1)
    maker.run("energy", ranks=ENERGY, layer_ranks={**LAYERS, "image_encoder.neck.0": {"svd_rank": 0}}, seed=2)
    maker.run("fixed", ranks={"r_lora": 4, "svd_rank_linear": 9})
    drawn = draw_layer_ranks(table_of(maker), tmp_path)
    (picture,) = drawn.pictures
    assert (0, "attn.qkv", (0, 1, 2), (0, 10, 20)) in lines
    assert (1, "mlp.lin1", (0, 1, 2), (4, 3, 2)) in lines
    assert (0, "neck.0", (3,), (7,)) in lines
    assert picture.png.with_suffix(".pdf").is_file()
    assert "seed 1" in picture.caption
    assert "energy" in picture.caption
    assert "singular values that are scaled: 70" in picture.alt


def test_such_a_run_is_no_row_of_the_paper_and_its_label_says_the_rule(maker, tmp_path):
    maker.run("salt_4")
    maker.run("energy", ranks=ENERGY, layer_ranks=LAYERS)
    maker.run("prune", ranks=PRUNE, layer_ranks=LAYERS)
    table = table_of(maker)
    labels = {row.label: row.paper for row in table.sections[0].rows if row.runs}
    assert len(labels) == 3
    assert sum(paper is not None for paper in labels.values()) == 1
    assert any("top 90% of the energy" in label for label in labels)
    assert any("pruned to 2.0%" in label for label in labels)
    assert draw_rank_scatter(table, tmp_path).pictures == []


def test_seeds_that_chose_other_ranks_are_one_mean(maker):
    cut = {"epoch": 5, "percent": 2.0, "error": 0.1, "bound": 0.1, "norm": 9.0, "layers": {}}
    for seed in (0, 1):
        maker.run("prune", ranks=PRUNE, layer_ranks=LAYERS, rank_cut=cut, trainable=1000 + seed, seed=seed)
    assert not table_of(maker).remarks()


def test_other_differences_in_the_number_of_parameters_are_still_said(maker):
    for seed in (0, 1):
        maker.run("energy", ranks=ENERGY, trainable=1000 + seed, seed=seed)
    assert any("trainable parameters" in remark for remark in table_of(maker).remarks())


@pytest.mark.parametrize("rule", ["energy", "prune"])
def test_results_keep_what_they_hold(maker, rule):
    folder = maker.run(rule, ranks={"rank_rule": rule}, layer_ranks=LAYERS)
    (run,) = gather(folder).runs
    assert run.results.layer_ranks == LAYERS
