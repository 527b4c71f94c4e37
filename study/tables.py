"""The page's tables as Markdown."""

from collections.abc import Mapping, Sequence

from evaluation.metrics import bootstrap_interval
from evaluation.names import metric_of
from report.cells import Cell
from report.markdown import escape, markdown_table
from report.numbers import cell_text, p_text, signed
from report.statistics import holm, wilcoxon_test
from study.choice import Choice
from study.results import METRICS, Result, shared_dice
from utils.config.options import Size


def methods_table(results: Sequence[Result], rates: Mapping[str, float]) -> str:
    """A row for each method: what it trains, its learning rate, and how long."""
    rows = [
        [
            escape(result.label),
            f"{result.all_runs[0].results.trainable:,} ({result.percent:.1f}%)",
            f"{rates[result.name]:g}" if result.name in rates else "-",
            f"{minutes:.1f}" if (minutes := result.minutes) is not None else "-",
            str(len(result.seeds)),
        ]
        for result in results
    ]
    return "\n".join(markdown_table(["Method", "Trained", "Learning rate", "Minutes a run", "Seeds"], rows))


def scores_table(results: Sequence[Result], metric: str, size: Size = "native") -> str:
    """A row for each method: a metric on each dataset and their mean; "" where no run has it."""
    datasets = results[0].datasets
    head = ["Method", *map(escape, datasets), *(["Average"] if len(datasets) > 1 else [])]
    rows = []
    for result in results:
        cells = [result.cell(dataset, size) for dataset in datasets]
        cells += [result.average(size)] if len(datasets) > 1 else []
        rows.append([escape(result.label), *(_score(cell, metric) for cell in cells)])
    return "\n".join(markdown_table(head, rows)) if any(any(row[1:]) for row in rows) else ""


def cross_set_table(scores: Mapping[tuple[str, str], float]) -> str:
    """Dice by (trained on, tested on): a row for each dataset trained on."""
    datasets = list(dict.fromkeys(trained_on for trained_on, _ in scores))
    rows = [[escape(of), *(f"{scores[of, tested_on]:.3f}" for tested_on in datasets)] for of in datasets]
    return "\n".join(markdown_table(["Trained on", *(f"tested on {escape(name)}" for name in datasets)], rows))


def variants_table(results: Sequence[Result]) -> str:
    """A row for each variant of an ablation: the mean over its datasets."""
    cells = [r.cell(r.datasets[0]) if len(r.datasets) == 1 else r.average() for r in results]
    metrics = [metric for metric in METRICS if any(metric in cell.scores for cell in cells)]
    rows = [
        [escape(r.label), f"{r.percent:.1f}%", *(_score(cell, metric) for metric in metrics), str(len(r.seeds))]
        for r, cell in zip(results, cells, strict=True)
    ]
    head = ["Variant", "Trained", *(metric_of(metric).name for metric in metrics), "Seeds"]
    return "\n".join(markdown_table(head, rows))


def tests_table(results: Sequence[Result], tested: str) -> str:
    """Row `tested` against every other row, over the seeds that all share; "" without such a seed or row."""
    dice = {name: of_row.mean(axis=0) for name, of_row in shared_dice(results).items() if len(of_row)}
    labels = {result.name: escape(result.label) for result in results}
    others = [name for name in dice if name != tested]
    if tested not in dice or not others:
        return ""
    differences = [dice[tested] - dice[other] for other in others]
    tests = [wilcoxon_test(of_other) for of_other in differences]
    rows = []
    for other, difference, test, p_holm in zip(others, differences, tests, holm([t.p for t in tests]), strict=True):
        low, high = bootstrap_interval(difference)
        interval = f"{signed(test.difference, 3)} [{signed(low, 3)}, {signed(high, 3)}]"
        rows.append([labels[other], interval, p_text(test.p), p_text(p_holm)])
    return "\n".join(markdown_table([f"{labels[tested]} against", "Difference", "p", "p, Holm"], rows))


def rates_table(choices: Sequence[Choice]) -> str:
    """The Dice of every learning rate tried, the chosen one in bold."""
    rates = sorted({rate for choice in choices for rate in choice.dice})

    def cell(choice: Choice, rate: float) -> str:
        dice = f"{choice.dice[rate]:.3f}" if rate in choice.dice else ""
        return f"**{dice}**" if rate == choice.best else dice

    rows = [[choice.row, *(cell(choice, rate) for rate in rates)] for choice in choices]
    return "\n".join(markdown_table(["Row", *(f"{rate:g}" for rate in rates)], rows))


def _score(cell: Cell, metric: str) -> str:
    """Mean, deviation and interval; "" where the runs lack the metric or there is none."""
    if metric not in cell.scores:
        return ""
    text = cell_text(cell, metric)
    spread = f" ± {text.std}" if text.std else ""
    return f"{text.mean}{spread} {text.interval}".rstrip() + (f"; {text.empty}" if text.empty else "")
