"""Writes a study's page from finished runs: the text with its figures and CSV files. A person's reading is inserted."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from evaluation.names import metric_of
from report.markdown import escape
from study.choice import Choice, chosen_rates
from study.claims import Claim, find_claims
from study.cross_set import test_across
from study.csv_files import (
    CHOICES,
    CLAIMS,
    OTHER_SEEDS,
    PER_IMAGE,
    choices_csv,
    claims_csv,
    per_image_csv,
    read_checks_csv,
)
from study.figures import draw_ablations, draw_learning, draw_predictions
from study.plan import Study
from study.results import METRICS, Result, read_results
from study.sweep_plans import final_plan, plan_text, variant_plan
from study.tables import cross_set_table, methods_table, rates_table, scores_table, tests_table, variants_table
from utils.files import write_text

TABLES = (cross_set_table, methods_table, rates_table, scores_table, variants_table)
PAGE, READING, TEMPLATE = "README.md", "reading.md", "page.md.j2"


@dataclass(frozen=True)
class Group:
    """Rows that are compared with each other, a family or an ablation, and the claims about them.

    A family has tables of paired tests (Markdown) and pictures (file, title) as well.
    """

    title: str
    rows: Sequence[Result]
    claims: Sequence[Claim]
    tests: Sequence[str] = ()
    pictures: Sequence[tuple[Path, str]] = ()

    @property
    def labels(self) -> dict[str, str]:
        """The rows' labels as Markdown."""
        return {row.name: escape(row.label) for row in self.rows}


def write_page(study: Study, choices: Sequence[Choice], folder: Path) -> Path:
    """Writes the page and its files from the runs that are finished, and returns the page's path.

    `folder`/reading.md holds a person's comments. Each of its sections (## title) is inserted under the page's heading
    of that title, and the text before its first section at the top.
    """
    results = read_results(study, study.seeds)
    families = [
        _family(study, number, title, [results[name] for name in rows if name in results], choices, folder)
        for number, (title, rows) in enumerate(study.families.items(), start=1)
    ]
    ablations = _ablations(study, results)
    claims = [claim for group in (*families, *ablations) for claim in group.claims]
    chosen = chosen_rates(choices)
    write_text(folder / CHOICES, choices_csv(choices))
    write_text(folder / CLAIMS, claims_csv(claims))
    write_text(folder / PER_IMAGE, per_image_csv(results.values()))
    for name, make in {"plan_final.yaml": final_plan, "plan_variants.yaml": variant_plan}.items():
        if plan := make(study, chosen, study.seeds):
            write_text(folder / name, plan_text(plan))
    finished = {(r.name, name, run.results.seed) for r in results.values() for name in r.runs for run in r.runs[name]}
    missing = {
        name: [run for run in wanted if (name, *run) not in finished] for name, wanted in study.expected_runs.items()
    }
    reading = _sections(folder / READING)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = environment.get_template(TEMPLATE).render(
        study=study,
        found=sum(len(result.all_runs) for result in results.values()),
        expected=sum(map(len, study.expected_runs.values())),
        missing=[
            f"{name} ({', '.join(f'{of} {seed}' for of, seed in runs)})" for name, runs in missing.items() if runs
        ],
        images=_test_images(results.values()),
        families=families,
        ablations=ablations,
        ablations_picture=draw_ablations([(group.title, group.rows) for group in ablations], folder),
        choices=choices,
        rates=chosen,
        at_edge=[choice.row for choice in choices if choice.at_edge],
        metrics=METRICS,
        metric_of=metric_of,
        cross_set=test_across(study, results),
        labels={name: escape(result.label) for name, result in results.items()},
        checks=read_checks_csv(folder / OTHER_SEEDS, claims),
        reading=lambda title: reading.pop(title, ""),
        remaining=lambda: list(reading),
        listed=lambda rates: ", ".join(f"{rate:g}" for rate in rates),
        **{table.__name__: table for table in TABLES},
    )
    write_text(folder / PAGE, re.sub(r"\n{3,}", "\n\n", text).strip() + "\n")
    return folder / PAGE


def _test_images(results: Iterable[Result]) -> int:
    """The number of test images of all datasets."""
    return max((sum(len(result.images(dataset)) for dataset in result.runs) for result in results), default=0)


def _family(
    study: Study, number: int, title: str, rows: Sequence[Result], choices: Sequence[Choice], folder: Path
) -> Group:
    pictures: list[tuple[Path, str]] = []
    if rows:
        if picture := draw_learning(f"{number}", study, rows, choices, folder):
            pictures.append((picture, "Learning curves and learning rates"))
        for picture in draw_predictions(f"{number}", title, rows, folder):
            pictures.append((picture, "Predictions on a test image of each dataset"))
    tests = [table for name in study.tested if (table := tests_table(rows, name))]
    return Group(title, rows, find_claims(title, rows), tests, pictures)


def _ablations(study: Study, results: Mapping[str, Result]) -> list[Group]:
    """The ablations whose first row, and a variant that is compared with it, have a seed on all of the datasets.

    Claims are about variants with all seeds of the first row. The noise from seed to seed is that of all ablations'
    rows with these seeds.
    """
    groups = []
    names = dict.fromkeys(name for ablation in study.ablations for name in ablation.rows)
    all_rows = [results[name] for name in names if name in results]
    for ablation in study.ablations:
        found = {name: results[name].with_label(label) for name, label in ablation.rows.items() if name in results}
        shared = study.shared_datasets(ablation.title)
        rows = [of_shared for row in found.values() if (of_shared := row.on(shared)).seeds]
        first, *variants = [row.name for row in rows] or [""]
        if variants and first == next(iter(ablation.rows)):
            others = [row.on(shared) for row in all_rows if shared <= set(row.datasets)]
            others = [row for row in others if set(rows[0].seeds) <= set(row.seeds)]
            compared = {row.name for row in others} & set(variants)
            pairs = [(first, name) for name in variants if name in compared]
            claims = find_claims(ablation.title, others, pairs)
            groups.append(Group(ablation.title, rows, claims))
    return groups


def _sections(path: Path) -> dict[str, str]:
    """The text of each section of the reading by its title; the text before the first one has the title ""."""
    if not path.is_file():
        return {}
    first, *others = re.split(r"^## (.+)\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {"": first, **dict(zip(others[::2], others[1::2], strict=True))}
