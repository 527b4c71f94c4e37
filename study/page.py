"""docs/study: the page, its figures and CSV files, all from finished runs; a person's reading is included as it is."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from report.markdown import escape
from study.choice import Choice, choices_csv, chosen_rates
from study.claims import Claim, claims_csv, find_claims
from study.figures import draw_ablations, draw_learning, draw_predictions
from study.plan import Ablation, Study, final_plan, plan_text, variant_plan
from study.results import Result, per_image_csv, read_results
from study.tables import methods_table, rates_table, tests_table, variants_table
from study.words import (
    HOW_CLAIMS,
    HOW_PICTURES,
    HOW_TABLE,
    HOW_TESTS,
    HOW_VARIANTS,
    TITLE,
    checked_words,
    claim_words,
    head_words,
    rate_words,
)
from utils.files import write_text

PAGE, READING = "README.md", "reading.md"
CHOICES, CLAIMS, PER_IMAGE, OTHER_SEEDS = "learning_rates.csv", "claims.csv", "per_image.csv", "other_seeds.csv"


def write_page(study: Study, choices: Sequence[Choice], folder: Path) -> Path:
    """Writes the page from the runs that are finished, and says how many are missing; returns its path.

    `folder`/reading.md holds what a person says: a section of it (## title) goes below the page's heading of that
    title, and what stands before the first section to the top.
    """
    results = read_results(study, study.seeds)
    reading = _sections(folder / READING)
    lines = [f"# {TITLE}", "", *head_words(study, results), "", *reading.pop("", [])]
    claims: list[Claim] = []

    def add(heading: str, body: Sequence[str]) -> None:
        lines.extend(["", heading, "", *body, "", *reading.pop(heading.lstrip("# "), [])])

    for number, (title, rows) in enumerate(study.families.items(), start=1):
        of_family = [results[name] for name in rows if name in results]
        found = find_claims(title, of_family)
        claims += found
        add(f"## {title}", _family(study, number, title, of_family, choices, found, folder))
    variants = _variants(study, results)
    if variants:
        picture = draw_ablations(variants, folder)
        shown = [f"![Dice of each variant, seed by seed]({picture.name})"] if picture else []
        add("## Ablations", [*shown, "", HOW_VARIANTS])
    for ablation, rows in variants:
        found = _variant_claims(ablation, rows, [row for _, others in variants for row in others])
        claims += found
        add(f"### {ablation.title}", [*variants_table(rows), "", *claim_words(found, _labels(rows))])
    if choices:
        add("## Learning rates", [rate_words(study, choices), "", *rates_table(choices)])
    add("## Another seed", checked_words(folder / OTHER_SEEDS, claims))
    for title in list(reading):
        add(f"## {title}", [])
    _write_files(study, choices, claims, list(results.values()), folder)
    write_text(folder / PAGE, re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n")
    return folder / PAGE


def _write_files(
    study: Study, choices: Sequence[Choice], claims: Sequence[Claim], results: Sequence[Result], folder: Path
) -> None:
    chosen = chosen_rates(choices)
    write_text(folder / CHOICES, choices_csv(choices))
    write_text(folder / CLAIMS, claims_csv(claims))
    write_text(folder / PER_IMAGE, per_image_csv(results))
    plans = {"plan_final.yaml": final_plan, "plan_variants.yaml": variant_plan}
    for name, make in plans.items():
        if plan := make(study, chosen, study.seeds):
            write_text(folder / name, plan_text(plan))


def _family(
    study: Study,
    number: int,
    title: str,
    results: Sequence[Result],
    choices: Sequence[Choice],
    claims: Sequence[Claim],
    folder: Path,
) -> list[str]:
    """Table, orders, tests and figures of one family."""
    if not results:
        return ["No finished run yet."]
    lines = [HOW_TABLE, "", *methods_table(results, chosen_rates(choices))]
    lines += ["", "### What the data support", "", HOW_CLAIMS, "", *claim_words(claims, _labels(results))]
    if tests := tests_table(results):
        lines += ["", "### SALT against each", "", HOW_TESTS, "", *tests]
    lines += ["", "### How they learn, what they predict", ""]
    if picture := draw_learning(f"{number}", study, results, choices, folder):
        lines += [f"![Learning curves and learning rates: {title}]({picture.name})", ""]
    for picture in draw_predictions(f"{number}", title, results, folder):
        lines += [f"![Predictions on one test image: {title}]({picture.name})", ""]
    return [*lines, HOW_PICTURES]


def _variants(study: Study, results: Mapping[str, Result]) -> list[tuple[Ablation, list[Result]]]:
    """The ablations with at least two rows that have runs, called as the ablation calls them."""
    found = [
        (ablation, [results[name].called(label) for name, label in ablation.rows.items() if name in results])
        for ablation in study.ablations
    ]
    return [(ablation, rows) for ablation, rows in found if len(rows) > 1]


def _variant_claims(ablation: Ablation, rows: Sequence[Result], all_rows: Sequence[Result]) -> list[Claim]:
    """Each variant against the first row; the noise from seed to seed is that of all ablations' rows."""
    pairs = [(rows[0].name, row.name) for row in rows[1:]]
    return find_claims(ablation.title, list({row.name: row for row in all_rows}.values()), pairs)


def _labels(results: Sequence[Result]) -> dict[str, str]:
    return {result.name: escape(result.label) for result in results}


def _sections(path: Path) -> dict[str, list[str]]:
    """The reading's sections by title; what stands before the first has the title ""."""
    sections: dict[str, list[str]] = {"": []}
    title = ""
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        if heading := re.fullmatch(r"## (.+)", line):
            title = heading[1]
            sections[title] = [""]
        else:
            sections[title].append(line)
    return sections
