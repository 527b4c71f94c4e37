"""The page's tables, as lines of Markdown."""

from collections.abc import Mapping, Sequence

from evaluation.metrics import bootstrap_interval
from report.cells import Cell
from report.markdown import escape
from report.numbers import cell_text, p_text, signed
from report.statistics import holm, paired_test
from study.choice import Choice
from study.results import Result


def methods_table(results: Sequence[Result], rates: Mapping[str, float]) -> list[str]:
    """A row for each method: what it trains, its learning rate, its scores and its seconds an epoch."""
    head = ["Method", "Trained", "Learning rate", "Dice", "HD95", "Dice at the model's size", "s an epoch", "Seeds"]
    return _grid(head, [_row(result, rates.get(result.name)) for result in results])


def variants_table(results: Sequence[Result]) -> list[str]:
    """A row for each variant of an ablation."""
    rows = [
        [escape(r.label), _percent(r), _score(r.native, "dice"), _score(r.native, "hd95"), str(len(r.runs))]
        for r in results
    ]
    return _grid(["Variant", "Trained", "Dice", "HD95", "Seeds"], rows)


def tests_table(results: Sequence[Result]) -> list[str]:
    """The SALT of the highest LoRA rank against every other row, over the seeds that all share; empty without them."""
    salts = [result for result in results if result.key.method == "salt"]
    others = [result for result in results if result not in salts[-1:]]
    if not salts or not others:
        return []
    ours = salts[-1]
    seeds = [seed for seed in ours.seeds if all(seed in other.seeds for other in others)]
    if not seeds:
        return []
    dice = {r.name: r.dice[[r.seeds.index(seed) for seed in seeds]].mean(axis=0) for r in results}
    tests = [paired_test(*(dict(enumerate(dice[name])) for name in (ours.name, other.name))) for other in others]
    rows = []
    for other, test, corrected in zip(others, tests, holm([test.p for test in tests]), strict=True):
        low, high = bootstrap_interval(dice[ours.name] - dice[other.name])
        interval = f"{signed(test.difference, 3)} [{signed(low, 3)}, {signed(high, 3)}]"
        rows.append([escape(other.label), interval, p_text(test.p), p_text(corrected)])
    return _grid([f"{escape(ours.label)} against", "Difference", "p", "p, Holm"], rows)


def rates_table(choices: Sequence[Choice]) -> list[str]:
    """The Dice of every learning rate tried, the chosen one in bold."""
    rates = sorted({rate for choice in choices for rate in choice.dice})

    def cell(choice: Choice, rate: float) -> str:
        dice = f"{choice.dice[rate]:.3f}" if rate in choice.dice else ""
        return f"**{dice}**" if rate == choice.best else dice

    rows = [[choice.row, *(cell(choice, rate) for rate in rates)] for choice in choices]
    return _grid(["Row", *(f"{rate:g}" for rate in rates)], rows)


def _row(result: Result, rate: float | None) -> list[str]:
    seconds = result.seconds
    return [
        escape(result.label),
        f"{result.runs[0].results.trainable:,} ({_percent(result)})",
        f"{rate:g}" if rate is not None else "-",
        _score(result.native, "dice"),
        _score(result.native, "hd95"),
        _score(result.at_size, "dice"),
        f"{seconds:.1f}" if seconds is not None else "-",
        str(len(result.runs)),
    ]


def _percent(result: Result) -> str:
    return f"{result.runs[0].results.percent:.1f}%"


def _score(cell: Cell, metric: str) -> str:
    text = cell_text(cell, metric)
    spread = f" ± {text.std}" if text.std else ""
    return f"{text.mean}{spread} {text.interval}" + (f"; {text.empty}" if text.empty else "")


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
