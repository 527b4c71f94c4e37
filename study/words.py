"""The study's sentences, and those of its tables that are more words than numbers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from study.choice import Choice
from study.claims import Claim, read_checked_csv
from study.plan import Study
from study.results import Result

TITLE = "Table 1 in miniature"
HOW_TABLE = (
    "Weights after the last epoch. Dice and HD95 (pixels) of the test images at their own size: mean over the seeds ± "
    "their standard deviation, in brackets the 95% bootstrap interval over the images. Seconds: the fastest epoch of "
    "all runs, one thread. The learning rate is the one chosen below."
)
HOW_TESTS = (
    "Wilcoxon's signed-rank test over the test images, each averaged over the seeds: the mean difference in Dice "
    "(positive: SALT is better) with its 95% bootstrap interval over the images, p alone, and after Holm's correction."
)
HOW_CLAIMS = (
    "An order is claimed where the 99% prediction interval of the difference in a further seed is above 0, and "
    "Wilcoxon's test over the images, averaged over the seeds, has p of at most 0.05 (uncorrected: with six images, "
    "all six agree). The noise from seed to seed is pooled over the trained rows; a pair with an untrained one has "
    "its own. What is not claimed is undecided, which does not mean equal."
)
HOW_VARIANTS = (
    "Variants differ from the first one, in orange, in nothing but what is named, and take the learning rate chosen "
    "for SALT of their LoRA rank. Orders are claimed against the first alone, by the rule above; the noise from seed "
    "to seed is that of all rows here."
)
HOW_PICTURES = "White: predicted; red: missed. The image is the one of SALT's median Dice, the seed the lowest."


def head_words(study: Study, results: Mapping[str, Result]) -> list[str]:
    """What the page is, how it was made, and on how many of its runs it rests."""
    expected = len(study.seeds) * (len(study.rows) + len(study.variants))
    there = sum(len(result.runs) for result in results.values())
    lines = [
        "Every method on nano models and the real DRIVE set at equal budget, on a CPU. Written by `make study` from "
        "the runs' own files; only the reading is by hand. **None of it speaks for ViT-B's numbers.**",
        "",
        f"- Settings of all runs: `{' '.join(study.overrides)}`; seeds {', '.join(map(str, study.seeds))}.",
        f"- It rests on {there} of {expected} runs" + (": **unfinished**." if there < expected else "."),
        "- [per_image.csv](per_image.csv) has every score of every test image, [claims.csv](claims.csv) the orders "
        "that the page claims, [learning_rates.csv](learning_rates.csv) what was tried. The runs, as `python main.py "
        "sweep --plan` takes them: [plan_final.yaml](plan_final.yaml), [plan_variants.yaml](plan_variants.yaml).",
        "- `make study SEEDS=3` runs the rows of the claimed orders with another seed, and says which orders hold.",
    ]
    missing = {
        name: [str(seed) for seed in study.seeds if name not in results or seed not in results[name].seeds]
        for name in study.rows | study.variants
    }
    words = [f"{name} ({', '.join(seeds)})" for name, seeds in missing.items() if seeds]
    if words and there:
        lines.append(f"- Missing rows (seeds): {'; '.join(words)}.")
    return lines


def claim_words(claims: Sequence[Claim], labels: Mapping[str, str]) -> list[str]:
    """The claims as a list, one line for each better row."""
    if not claims:
        return ["No order is claimed here."]
    lines = []
    for better in dict.fromkeys(claim.better for claim in claims):
        worse = [claim for claim in claims if claim.better == better]
        names = ", ".join(f"{labels[c.worse]} (+{c.difference:.3f}, [{c.low:.3f}, {c.high:.3f}])" for c in worse)
        lines.append(f"- {labels[better]} is above {names}.")
    return lines


def checked_words(path: Path, claims: Sequence[Claim]) -> list[str]:
    """How the claims fared in other seeds, or that nobody has looked."""
    checked = read_checked_csv(path, claims)
    if not checked:
        return ["Not checked yet for these claims: `make study SEEDS=3` does it."]
    seeds = sorted({seed for _, seed, _ in checked})
    wrong = [(c, seed, d) for c, seed, d in checked if d is None or d <= 0]
    lines = [
        f"Run with seed {', '.join(map(str, seeds))} after the claims were made: {len(checked) - len(wrong)} of "
        f"{len(checked)} claimed orders hold (`other_seeds.csv`)."
    ]
    for claim, seed, difference in wrong:
        found = "no run" if difference is None else f"{difference:+.3f}"
        lines.append(f"- Not: {claim.better} above {claim.worse} ({claim.group}), seed {seed}: {found}")
    return lines


def rate_words(study: Study, choices: Sequence[Choice]) -> str:
    """How the learning rates were chosen, and whether a choice lies at the edge of what was tried."""
    edge = [choice.row for choice in choices if choice.at_edge]
    said = f"At the edge of what was tried, so that a rate beyond might be better: {', '.join(edge)}."
    first, ladder = (", ".join(f"{rate:g}" for rate in of) for of in (study.first_rates, study.learning_rates))
    return (
        f"Dice of {study.validation_images} training images that were set aside, after training on the others with "
        f"seed {study.seeds[0]} (`{' '.join(study.choice_overrides)}`); the test images had no part in it. Every "
        f"method tries {first}, and the next one of {ladder} while its best is the last on that side. Bold: chosen. "
        + (said if edge else "No choice is at the edge of what was tried.")
    )
