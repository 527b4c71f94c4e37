"""What several commands print."""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evaluation.results import Scores
    from evaluation.summaries import AtSize


def process_index() -> int:
    """The rank of this process among those that torchrun started; only process 0 prints and logs."""
    return int(os.environ.get("RANK", "0"))


def print_scores(title: str, scores: "Scores") -> None:
    """Prints Dice and HD95 at both image sizes, a line each; below it the further metrics, then the field of view.

    Where the scores of both sizes are the same, as for a folder of masks, only the images' own size is printed. The
    scores of each label follow, where there are several.
    """
    sizes = [(scores.img_size, "at the model's image size"), (scores.native, "at the images' own size")]
    if scores.img_size == scores.native:
        sizes = sizes[1:]
    for at_size, name in sizes:
        interval = "[{:.4f}, {:.4f}]".format(*at_size.dice.ci95) if at_size.dice.ci95 else "[no interval]"
        print(
            f"{title}: Dice {at_size.dice.mean:.4f} {interval}, HD95 {at_size.hd95.mean:.2f} px, "
            f"n {at_size.n}, {at_size.n_empty} with one mask empty, {name}"
        )
        if at_size.others:
            print(f"  {_listed(at_size, at_size.others)}")
        if at_size.fov:
            print(f"  inside the field of view: {_listed(at_size.fov, ('dice', 'hd95', *at_size.fov.others))}")
    for label, of_label in (scores.labels or {}).items():
        at_model, own = of_label.img_size, of_label.native
        print(
            f"  {label}: Dice {at_model.dice.mean:.4f}, HD95 {at_model.hd95.mean:.2f} px; at the images' own size "
            f"Dice {own.dice.mean:.4f}, HD95 {own.hd95.mean:.2f} px; n {own.n}, {own.n_empty} with one mask empty"
        )


def _listed(scores: "AtSize", names: Iterable[str]) -> str:
    """Such as "clDice 0.712, Sensitivity 0.801 (n 5)": the n of a metric that is undefined for some samples."""
    from evaluation.names import metric_of

    words = []
    for name in names:
        metric, measure = metric_of(name), scores.measure(name)
        defined = scores.others[name].n if name in scores.others else scores.n
        mean = metric.text(measure.mean) if measure and measure.mean is not None else "undefined"
        words.append(f"{metric.name} {mean}" + (f" (n {defined})" if 0 < defined < scores.n else ""))
    return ", ".join(words)
