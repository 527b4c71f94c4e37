"""The paper's numbers, which runs stand beside them, and what the other rows are called."""

import json

import pytest

from report.comparison import reference_row
from report.gather import gather
from report.paper import PAPER_ROWS, column_name
from report.rows import labels, order, rank_text
from report.table import build_table

SALT_200 = {"svd_rank_linear": 200, "svd_rank_conv2d": 200, "r_lora": 256, "rank_pattern": {}}


def keys_of(maker):
    return [run.key for run in gather(maker.root).runs]


def label_of(maker, row="x", **changes):
    maker.run(row, folder="only", **changes)
    (key,) = keys_of(maker)
    return labels([key])[key], key.paper


def test_the_papers_numbers_are_those_of_table_1(paper):
    assert [row.name for row in PAPER_ROWS] == list(paper.rows)
    for row in PAPER_ROWS:
        for dataset in (*paper.datasets, "Average"):
            score = row.average if dataset == "Average" else row.scores.get(dataset)
            expected = paper.printed(row.name, dataset)
            assert (score and (score.dice, score.hd95 or "-")) == expected, (row.name, dataset)


def test_every_row_of_the_paper_is_matched_by_its_runs(maker, paper):
    for row in paper.rows:
        maker.run(row)
    runs = gather(maker.root).runs
    assert {run.folder.parent.name: run.key.paper for run in runs} == {row: row for row in paper.rows}
    names = labels([run.key for run in runs])
    assert len(set(names.values())) == len(paper.rows)
    ordered = [names[key] for key in sorted(names, key=order)]
    assert ordered[:3] == ["U-Net", "UNETR", "RegUNet"]
    assert ordered[9:13] == ["LoRA 4", "LoRA 256", "SALT 4", "SALT 256"]
    assert ordered[-1] == "SAM2 SALT 256"


@pytest.mark.parametrize(
    ("row", "changes", "label", "of_paper"),
    [
        ("salt_256", {"profile": "released"}, "SALT 256 (released profile)", "salt_256"),
        ("salt_256", {"text_encoder": "learned"}, "SALT 256 (learned prompt)", "salt_256"),
        ("salt_256", {"ranks": SALT_200}, "SALT 256", "salt_256"),
        ("salt_256", {"img_size": 256}, "SAM ViT-B, SALT 256 (top 410, neck 256)", ""),
        ("salt_256", {"sam_type": "huge"}, "SAM ViT-H, SALT 256 (top 410, neck 256)", ""),
        ("salt_256", {"weights": "random"}, "SAM ViT-B, SALT 256 (top 410, neck 256, random base weights)", ""),
        ("salt_256", {"prompt": "box_oracle"}, "SAM ViT-B, SALT 256 (top 410, neck 256, box from the truth)", ""),
        ("salt_256", {"ranks": {**SALT_200, "r_lora": 64}}, "SAM ViT-B, SALT 64 (top 200, neck 200)", ""),
        ("lora_4", {"ranks": {"r_lora": 8}}, "SAM ViT-B, LoRA 8", ""),
        ("lora_4", {"sam_type": "nano", "text_encoder": "learned"}, "nano SAM, LoRA 4", ""),
        ("ssam", {"method": "svdbiastuning"}, "SAM ViT-B, SVD and biases", ""),
        ("ssam", {"method": "full"}, "SAM ViT-B, full fine-tuning", ""),
        ("medsam", {}, "MedSAM (box around the whole image)", "medsam"),
        ("medsam", {"prompt": "box_oracle"}, "MedSAM (box from the truth)", "medsam"),
        ("medsam", {"weights": "sam_vit_b_01ec64.pth"}, "SAM ViT-B, no training (box around the whole image)", ""),
        ("unet", {}, "U-Net", "unet"),
        ("unet", {"arch": "segresnet"}, "SegResNet", ""),
        ("unet", {"sam_type": "nano"}, "nano U-Net", ""),
        ("unet", {"img_size": 256}, "U-Net", ""),
        ("sam2_salt_4", {"sam_type": "large"}, "SAM2 L, SALT 4", ""),
        (
            "sam2_salt_4",
            {"sam_type": "nano", "ranks": {"svd_ratio": 0.25, "r_lora": 8}},
            "nano SAM2, SALT 8 (top 25%)",
            "",
        ),
        ("x", {"method": "newer", "arch": "Other"}, "Other, newer", ""),
    ],
)
def test_a_row_is_named_by_what_it_is(maker, row, changes, label, of_paper):
    assert label_of(maker, row, **changes) == (label, of_paper)


@pytest.mark.parametrize(
    ("section", "own"),
    [("sam: {mask_head: detail}", "detail head)"), ("data_transforms: {scale: native}", "native scale)")],
)
def test_a_run_with_an_option_beyond_the_paper_is_no_row_of_it(maker, section, own):
    """Its results have all that the paper's SALT 256 has; its config tells."""
    plain, head = (maker.run("salt_256", folder=name) for name in ("plain", "head"))
    for folder, more in ((plain, ""), (head, section)):
        (folder / "config.yaml").write_text(f"strategy: salt\n{more}\n")
    by_folder = {run.folder: run.key for run in gather(maker.root).runs}
    assert (by_folder[plain].paper, by_folder[head].paper) == ("salt_256", "")
    assert labels(list(by_folder.values()))[by_folder[head]].endswith(own)
    table = build_table(gather(maker.root).runs, "last", "img_size")
    assert reference_row(table.sections[0].rows).key == by_folder[plain]
    assert any("scored at the images' own size" in line for line in table.remarks()) == ("native" in section)
    assert not build_table(gather(maker.root).runs, "last", "native").remarks()


def test_a_run_without_the_key_prompt_is_a_text_prompted_one(maker):
    older, newer = maker.run("salt_256", folder="a"), maker.run("salt_256", folder="b", prompt="text", seed=1)
    assert "prompt" not in json.loads((older / "results.json").read_text())
    assert "prompt" in json.loads((newer / "results.json").read_text())
    first, second = keys_of(maker)
    assert first == second


def test_several_ranks_behind_one_row_of_the_paper_are_told_apart(maker):
    maker.run("salt_256", folder="a")
    maker.run("salt_256", folder="b", ranks=SALT_200)
    maker.run("salt_256", folder="c", profile="released")
    maker.run("salt_256", folder="d", seed=1)
    keys = list(dict.fromkeys(keys_of(maker)))
    assert [labels(keys)[key] for key in keys] == [
        "SALT 256 (top 410, neck 256)",
        "SALT 256 (top 200, neck 200)",
        "SALT 256 (released profile)",
    ]


def test_rows_that_words_cannot_tell_apart_are_numbered(maker):
    for folder, pattern in (("a", {"*.0.*": {"r_lora": 2}}), ("b", {"*.1.*": {"r_lora": 2}})):
        maker.run("x", folder=folder, method="lora", ranks={"r_lora": 8, "rank_pattern": pattern})
    keys = keys_of(maker)
    assert [labels(keys)[key] for key in keys] == [
        "SAM ViT-B, LoRA 8 (ranks by layer) [1]",
        "SAM ViT-B, LoRA 8 (ranks by layer) [2]",
    ]


def test_ranks_in_words(maker):
    maker.run("salt_256")
    assert rank_text(keys_of(maker)[0]) == "top 410, neck 256, LoRA 256"


@pytest.mark.parametrize(
    ("dataset", "column"),
    [
        ("xray_angio", "XRay-Angio"),
        ("XRay-Angio", "XRay-Angio"),
        ("drive", "DRIVE"),
        ("STARE", "STARE"),
        ("d_2", "d_2"),
    ],
)
def test_datasets_go_to_the_papers_columns(dataset, column):
    assert column_name(dataset) == column
