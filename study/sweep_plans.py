"""A study's plans for `main.py sweep`: first the runs that choose the learning rates, then the final ones."""

import random
from collections.abc import Iterable, Mapping, Sequence

from datasets.split import read_split
from experiments.sweep_plan import RowPlan, SweepPlan
from study.plan import Study, StudyRow
from utils.config import load_config
from utils.config.sources import dump_yaml
from utils.errors import UserError
from utils.files import csv_text


def choice_split(study: Study, dataset: str) -> str:
    """The CSV of the split that learning rates are chosen with: the training images alone, some of them as test images.

    Raises:
        UserError: the data is missing or has too few training images.
    """
    path, count = study.datasets[dataset].data_config, study.datasets[dataset].validation_images
    train = sorted(read_split(load_config(None, path).require_data())["train"])
    if len(train) <= count:
        raise UserError(f"{path}: {len(train)} training images, of which {count} cannot be set aside")
    aside = set(random.Random(0).sample(train, count))
    return csv_text(("imgs", "split"), ((name, "test" if name in aside else "train") for name in train))


def choice_row(name: str, rate: float) -> str:
    """The name of a row with one learning rate."""
    return f"{name}_lr{rate:g}"


def choice_plan(study: Study, rates: Mapping[str, Iterable[float]]) -> SweepPlan:
    """The runs that try the `rates` of each row, on the splits of `choice_split`."""
    rows = {
        choice_row(name, rate): _row(study, study.rows[name], [f"training.lr={rate:g}"])
        for name, tried in rates.items()
        for rate in tried
    }
    of_datasets = {
        name: [
            *study.datasets[name].choice_overrides,
            f"data.data_split_csv={study.split_file(name)}",
            f"data.name={name}-choice",
            "data.val=test",
        ]
        for name in study.choice_datasets
    }
    return _plan(study, "choice", rows, study.seeds[:1], of_datasets)


def final_plan(study: Study, chosen: Mapping[str, float], seeds: Sequence[int]) -> SweepPlan | None:
    """The final runs with each row's chosen learning rate. A row without one is left out; None if no row is left."""
    rows = {
        name: _final_row(study, row, [f"training.lr={chosen[name]:g}"] if row.trained else [])
        for name, row in study.rows.items()
        if name in chosen or not row.trained
    }
    return _plan(study, "final", rows, seeds) if rows else None


def variant_plan(study: Study, chosen: Mapping[str, float], seeds: Sequence[int]) -> SweepPlan | None:
    """The runs of the ablations' variants; rows are left out as in `final_plan`.

    A variant's own seeds limit it among the study's; with other seeds it runs as every row does.
    """
    rows = {}
    for name, row in study.variants.items():
        if row.lr_of is not None and row.lr_of in chosen:
            own = [seed for seed in row.seeds or () if seed in seeds] or None
            of_rate = _final_row(study, row, [f"training.lr={chosen[row.lr_of]:g}"])
            rows[name] = of_rate.model_copy(update={"seeds": own})
    return _plan(study, "final", rows, seeds) if rows else None


def plan_text(plan: SweepPlan) -> str:
    """A plan as the YAML that `main.py sweep --plan` reads."""
    return dump_yaml(plan.model_dump(mode="json", by_alias=True, exclude_none=True))


def _row(study: Study, row: StudyRow, more: Sequence[str]) -> RowPlan:
    base = study.bases[row.base]
    overrides = [*base.overrides, *row.overrides, *more]
    return base.model_copy(update={"overrides": overrides, "datasets": row.datasets})


def _final_row(study: Study, row: StudyRow, more: Sequence[str]) -> RowPlan:
    return _row(study, row, more).model_copy(update={"dataset_overrides": row.dataset_overrides})


def _plan(
    study: Study,
    part: str,
    rows: Mapping[str, RowPlan],
    seeds: Sequence[int],
    of_datasets: Mapping[str, Sequence[str]] | None = None,
) -> SweepPlan:
    """A plan on the datasets of `of_datasets` (all by default), with its overrides after the datasets' own."""
    more = dict.fromkeys(study.datasets, ()) if of_datasets is None else of_datasets
    return SweepPlan(
        output=study.output / part,
        seeds=list(seeds),
        datasets={name: study.datasets[name].data_config for name in more},
        rows=dict(rows),
        overrides=study.overrides,
        dataset_overrides={name: [*study.datasets[name].overrides, *own] for name, own in more.items()},
    )
