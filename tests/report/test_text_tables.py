"""Markdown, LaTeX and CSV, letter for letter."""

import csv
import io

import pytest

from report.csv_table import to_csv
from report.gather import gather
from report.latex import escape as latex_escape
from report.latex import to_latex
from report.markdown import escape as markdown_escape
from report.markdown import to_markdown
from report.table import build_table


@pytest.fixture
def small(maker):
    """Two rows at 64 pixels: SALT of two seeds, LoRA of one; every number can be had in the head."""
    salt = {"svd_rank_linear": 32, "svd_rank_conv2d": 16, "r_lora": 8, "rank_pattern": {}}
    nano = {"sam_type": "nano", "img_size": 64, "text_encoder": "learned"}
    for seed, dice in ((0, 0.5), (1, 0.7)):
        maker.run("x", "my_set", [dice] * 6, [4.0] * 6, seed, ranks=salt, trainable=110_000, percent=5.84, **nano)
    lora = {"method": "lora", "ranks": {"r_lora": 8}, "trainable": 999, "percent": 0.05}
    maker.run("y", "my_set", [0.65] * 6, [6.5] * 6, **lora, **nano)
    return build_table(gather(maker.root).runs, "last", "img_size")


def test_markdown_exactly(small):
    text = to_markdown(small)
    _, _, body = text.partition("the number of such pairs is given.\n")
    assert body == (
        "\n## Models at 64 pixels\n"
        "\n### Dice (higher is better)\n\n"
        "| Method | Ranks | Trainable | my\\_set |\n"
        "| --- | --- | --- | --- |\n"
        "| nano SAM, LoRA 8 | LoRA 8 | 0.05% / 999 | **0.650** [0.650, 0.650]; 1 seed |\n"
        "| nano SAM, SALT 8 (top 32, neck 16) | top 32, neck 16, LoRA 8 | 5.84% / 0.11M "
        "| 0.600 ± 0.141 [0.600, 0.600]; 2 seeds |\n"
        "\n### HD95 in pixels (lower is better)\n\n"
        "| Method | Ranks | Trainable | my\\_set |\n"
        "| --- | --- | --- | --- |\n"
        "| nano SAM, LoRA 8 | LoRA 8 | 0.05% / 999 | 6.50 [6.50, 6.50]; 1 seed |\n"
        "| nano SAM, SALT 8 (top 32, neck 16) | top 32, neck 16, LoRA 8 | 5.84% / 0.11M "
        "| **4.00 ± 0.00** [4.00, 4.00]; 2 seeds |\n"
        "\n### Tests\n\n"
        "Wilcoxon's signed-rank test, two-sided, of nano SAM, SALT 8 (top 32, neck 16) against each row, by the Dice "
        "of each test image and label averaged over the seeds: p after Holm's correction over the rows of a "
        "dataset, then the uncorrected p, the number of pairs n, and the mean difference (positive: SALT "
        "is better).\n\n"
        "| Against | my\\_set |\n"
        "| --- | --- |\n"
        "| nano SAM, LoRA 8 | 0.031 (p 0.031, n 6, -0.050) |\n"
        "\n### Missing\n\nNothing.\n"
    )
    assert text.startswith(
        "# SALT: results beside the paper's Table 1\n\n"
        "Weights after the last epoch (last), at the model's image size, as in the paper.\n"
    )


def test_latex_exactly(small):
    dice = to_latex(small).split("\n\n")[1]
    assert dice.splitlines() == [
        r"\begin{table*}[t]",
        r"  \centering",
        r"  \caption{Dice (higher is better). Models at 64 pixels. Weights after the last epoch (last), at the model's "
        r"image size, as in the paper.}",
        r"  \label{tab:dice-last-img-size-1}",
        r"  \resizebox{\textwidth}{!}{%",
        r"  \begin{tabular}{llc}",
        r"    \toprule",
        r"    Method & Trainable & my\_set \\",
        r"    \midrule",
        r"    nano SAM, LoRA 8 & 0.05\% / 999 & \stacked{\textbf{0.650} (1) \\ {[}0.650, 0.650{]}} \\ \addlinespace",
        r"    nano SAM, SALT 8 (top 32, neck 16) & 5.84\% / 0.11M & "
        r"\stacked{0.600 $\pm$ 0.141 (2) \\ {[}0.600, 0.600{]}} \\ \addlinespace",
        r"    \bottomrule",
        r"  \end{tabular}}",
        r"\end{table*}",
    ]


def test_csv_exactly(small):
    lines = to_csv(small).splitlines()
    assert lines[0] == (
        "weights,size,section,method,paper_row,arch,sam_type,strategy,ranks,prompt,text_encoder,profile,img_size,"
        "trainable,percent,paper_trainable,paper_percent,tested_against,"
        "my_set_dice,my_set_dice_std,my_set_dice_low,my_set_dice_high,my_set_dice_paper,my_set_dice_difference,"
        "my_set_dice_best,my_set_hd95,my_set_hd95_std,my_set_hd95_low,my_set_hd95_high,my_set_hd95_paper,"
        "my_set_hd95_difference,my_set_hd95_best,my_set_seeds,my_set_n,my_set_n_empty,my_set_p,my_set_p_holm,"
        "my_set_pairs,my_set_salt_minus_this"
    )
    assert lines[1] == (
        'last,img_size,Models at 64 pixels,"nano SAM, LoRA 8",,Prompt Adapted SAM,nano,lora,"{""r_lora"": 8}",text,'
        'learned,official,64,999,0.05,,,"nano SAM, SALT 8 (top 32, neck 16)",'
        "0.65,,0.65,0.65,,,1,6.5,,6.5,6.5,,,0,1,6,0,0.03125,0.03125,6,-0.05"
    )
    assert lines[2].endswith(
        ",learned,official,64,110000,5.84,,,,0.6,0.1414213562,0.6,0.6,,,0,4,0,4,4,,,1,2,6,0,,,,"
    )  # fmt: skip
    assert len(lines) == 3


def test_a_row_of_the_paper_exactly_in_every_format(maker, paper):
    """SALT 256: the paper's .81/42.50 .71/27.35 .67/12.64 .77/23.67 .75/13.20, average .74/23.87; ours .012 better."""
    paper.runs(maker, list(paper.rows))
    table = build_table(gather(maker.root).runs, "last", "img_size")
    markdown = [line for line in to_markdown(table).splitlines() if line.startswith("| SALT 256 |")]
    assert markdown[0] == (
        "| SALT 256 | top 410, neck 256, LoRA 256 | 3.90% / 9.80M (paper 3.9% / 9.4M) "
        "| 0.822 ± 0.003 [0.822, 0.822]; 2 seeds; paper 0.81 (+0.012) "
        "| **0.722 ± 0.003** [0.722, 0.722]; 2 seeds; paper 0.71 (+0.012) "
        "| **0.682 ± 0.003** [0.682, 0.682]; 2 seeds; paper 0.67 (+0.012) "
        "| **0.782 ± 0.003** [0.782, 0.782]; 2 seeds; paper 0.77 (+0.012) "
        "| **0.762 ± 0.003** [0.762, 0.762]; 2 seeds; paper 0.75 (+0.012) "
        "| **0.754 ± 0.003**; 2 seeds; paper 0.74 (+0.014) |"
    ).replace("| 0.822 ± 0.003 [", "| **0.822 ± 0.003** [")
    assert markdown[1].startswith(
        "| SALT 256 | top 410, neck 256, LoRA 256 | 3.90% / 9.80M (paper 3.9% / 9.4M) "
        "| 41.00 ± 0.71 [41.00, 41.00]; 2 seeds; paper 42.50 (-1.50) "
        "| **25.85 ± 0.71** [25.85, 25.85]; 2 seeds; paper 27.35 (-1.50) "
        "| 11.14 ± 0.71 [11.14, 11.14]; 2 seeds; paper 12.64 (-1.50) "
    )
    latex = [line.strip() for line in to_latex(table).splitlines() if "{SALT 256 " in line]
    assert latex[0].startswith(
        r"\stacked[l]{SALT 256 \\ top 410, neck 256, LoRA 256} & \stacked[l]{3.90\% / 9.80M \\ paper 3.9\% / 9.4M} & "
        r"\stacked{\textbf{0.822} $\pm$ 0.003 (2) \\ {[}0.822, 0.822{]} \\ paper 0.81 ($+0.012$)} & "
    )
    records = {row["paper_row"]: row for row in csv.DictReader(io.StringIO(to_csv(table)))}
    assert list(records) == list(paper.rows)
    for name, record in records.items():
        for dataset in paper.datasets:
            expected = paper.printed(name, dataset)
            if expected is None:
                assert record[f"{dataset}_dice"] == ""
                continue
            assert float(record[f"{dataset}_dice"]) == pytest.approx(float(expected[0]) + 0.012)
            assert record[f"{dataset}_dice_paper"] == expected[0]
            assert float(record[f"{dataset}_dice_difference"]) == pytest.approx(0.012)
            assert record[f"{dataset}_hd95_paper"] == expected[1].strip("-")
            assert (record[f"{dataset}_seeds"], record[f"{dataset}_n"]) == ("2", "8")


def test_names_that_mean_something_to_a_format_are_escaped(maker):
    assert markdown_escape("a|b_c*d<e>") == r"a\|b\_c\*d\<e\>"
    assert latex_escape("50% of_a & #1 {x} ~ ^ \\") == (
        r"50\% of\_a \& \#1 \{x\} \textasciitilde{} \textasciicircum{} \textbackslash{}"
    )
    maker.run("x", "a|b & c_d", method="lora & co", img_size=64)
    table = build_table(gather(maker.root).runs, "last", "img_size")
    assert "| Method | Ranks | Trainable | a\\|b & c\\_d |" in to_markdown(table)
    assert r"Method & Trainable & a\textbar{}b \& c\_d \\" in to_latex(table)


def test_what_is_missing_or_left_out_is_listed(maker):
    maker.run("salt_256")
    table = build_table(gather(maker.root).runs, "last", "img_size")
    for text in (to_markdown(table, ["x: damaged"]), to_latex(table, ["x: damaged"])):
        for line in ("UNETR: no run", "SALT 256: ARCADE, DIAS, ROSE, XRay-Angio, Average", "x: damaged"):
            assert line in text
