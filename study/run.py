"""Runs the study, from learning rates to page: python -m study.run [--plan FILE] [--page FOLDER].

A stopped study is continued. With --seeds 3 it instead runs the chosen learning rates with other seeds, and says for
each difference that the page claims whether these seeds show it too.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from study.choice import Choice, choose, chosen_rates
from study.claims import check_claims
from study.csv_files import CHOICES, CLAIMS, OTHER_SEEDS, checks_csv, read_choices_csv, read_claims_csv
from study.page import write_page
from study.plan import Study, read_study
from study.results import read_results
from study.sweep_plans import choice_split, final_plan, variant_plan
from study.workers import run_plan
from utils.errors import UserError
from utils.files import write_text

PARTS = {"final": final_plan, "variants": variant_plan}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the study; returns the exit status (0, 1 failed or a claim does not hold, 2 bad config, 3 stopped)."""
    parser = argparse.ArgumentParser(prog="study", description=__doc__)
    parser.add_argument("--plan", type=Path, default=Path("configs/table1/nano.yaml"))
    parser.add_argument("--page", type=Path, default=Path("docs/table1-nano"), help="of page, figures and CSV files")
    parser.add_argument("--workers", type=int, default=2, help="parallel runs, each with one thread")
    parser.add_argument("--seeds", type=int, nargs="+", help="other seeds to check the page's claims with")
    parser.add_argument("--page_only", action="store_true", help="write a page from the finished runs")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        study = read_study(args.plan)
        if args.seeds:
            return _other_seeds(study, args.seeds, args.page, args.workers)
        if args.page_only:
            _page_only(study, args.page)
        else:
            _study(study, args.page, args.workers)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _study(study: Study, page: Path, workers: int) -> None:
    """Runs one family after the other, so that an unfinished study has complete tables; then the ablations."""
    for dataset in study.choice_datasets:
        write_text(study.split_file(dataset), choice_split(study, dataset))
    choices: list[Choice] = []
    for number, rows in enumerate(study.families.values(), start=1):
        of_family = choose(study, rows, partial(run_plan, file=study.output / f"choice_{number}.yaml", workers=workers))
        print("\n".join(_choice_lines(of_family)), flush=True)
        choices += of_family
        _run_part(study, "final", choices, workers)
    _run_part(study, "variants", choices, workers)
    print(f"written: {write_page(study, choices, page)}")


def _run_part(study: Study, part: str, choices: Sequence[Choice], workers: int) -> None:
    if plan := PARTS[part](study, chosen_rates(choices), study.seeds):
        run_plan(plan, study.output / f"{part}.yaml", workers)


def _page_only(study: Study, page: Path) -> None:
    """Writes a page from the finished runs, and names the rows that have not tried all their learning rates."""
    choices: list[Choice] = []
    for name in study.rows:
        try:
            choices += choose(study, [name], lambda _: None)
        except UserError as error:
            print(f"{name}: no learning rate yet ({error})", file=sys.stderr)
    print(f"written: {write_page(study, choices, page)}")


def _choice_lines(choices: Sequence[Choice]) -> list[str]:
    lines = []
    for choice in choices:
        tried = ", ".join(f"{rate:g}: {dice:.4f}" for rate, dice in choice.dice.items())
        edge = "; the best is the last one tried" if choice.at_edge else ""
        lines.append(f"learning rate of {choice.row}: {choice.best:g} (Dice of the images set aside: {tried}{edge})")
    return lines


def _other_seeds(study: Study, seeds: Sequence[int], page: Path, workers: int) -> int:
    """Checks the claims with other seeds; returns 0 where all hold, else 1."""
    if shared := set(seeds) & set(study.seeds):
        raise UserError(f"--seeds {min(shared)}: is one of the page's own seeds; give another")
    claims = read_claims_csv(page / CLAIMS)
    chosen = chosen_rates(read_choices_csv(page / CHOICES))
    needed = {name for claim in claims for name in (claim.better, claim.worse)}
    for part, make in PARTS.items():
        plan = make(study, chosen, seeds)
        rows = {name: row for name, row in plan.rows.items() if name in needed} if plan else {}
        if plan and rows:
            run_plan(plan.model_copy(update={"rows": rows}), study.output / f"{part}_other.yaml", workers)
    checks = check_claims(study, claims, read_results(study, seeds))
    write_text(page / OTHER_SEEDS, checks_csv(checks))
    for claim, seed, difference in checks:
        found = "no run" if difference is None else f"{difference:+.4f}"
        print(f"seed {seed}: {claim.better} above {claim.worse}: {found}")
    held = sum(check.holds for check in checks)
    print(f"{held} of {len(checks)} claimed differences have the same sign")
    return 0 if held == len(checks) else 1


if __name__ == "__main__":
    sys.exit(main())
