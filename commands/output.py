"""What several commands print."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evaluation.results import Scores


def process_index() -> int:
    """The rank of this process among those that torchrun started; only process 0 prints and logs."""
    return int(os.environ.get("RANK", "0"))


def print_scores(title: str, scores: "Scores") -> None:
    """Prints Dice and HD95 at both image sizes, a line each, and a line for each label where there are several."""
    for at_size, name in ((scores.img_size, "at the model's image size"), (scores.native, "at the images' own size")):
        interval = "[{:.4f}, {:.4f}]".format(*at_size.dice.ci95) if at_size.dice.ci95 else "[no interval]"
        print(
            f"{title}: Dice {at_size.dice.mean:.4f} {interval}, HD95 {at_size.hd95.mean:.2f} px, "
            f"n {at_size.n}, {at_size.n_empty} with one mask empty, {name}"
        )
    for label, of_label in (scores.labels or {}).items():
        at_model, own = of_label.img_size, of_label.native
        print(
            f"  {label}: Dice {at_model.dice.mean:.4f}, HD95 {at_model.hd95.mean:.2f} px; at the images' own size "
            f"Dice {own.dice.mean:.4f}, HD95 {own.hd95.mean:.2f} px; n {own.n}, {own.n_empty} with one mask empty"
        )
