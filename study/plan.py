"""The study's YAML file."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from experiments.sweep_plan import Names, RowPlan, Seeds
from utils.config.errors import read_as
from utils.config.options import FilePath, Positive
from utils.config.schema import Section

Rates = Annotated[list[Positive], Field(min_length=1)]


class StudySet(Section):
    """A dataset with splits train and test.

    `validation_images` says how many training images are set aside to choose learning rates on; 0: none are chosen on
    it. `overrides` are for its runs alone, such as its number of epochs, and `choice_overrides` for those that choose.
    """

    data_config: FilePath
    validation_images: Annotated[int, Field(ge=0)]
    overrides: list[str] = Field([])
    choice_overrides: list[str] = Field([])


class StudyRow(Section):
    """A method, or a variant of one for an ablation: a base of the study with overrides.

    Attributes:
        label: its name on the page, for a row of a family.
        lr_of: the row whose learning rate a variant uses.
        dataset_overrides: those of its final runs on one dataset.
        datasets: of a variant that runs on some of the datasets alone; all by default.
        seeds: of a variant that runs with some of the seeds alone; all by default.
        trained: false for a row that trains nothing and has no learning rate.
        pictured: false for a row that is left out of the pictures of predictions.
    """

    base: str
    label: str = ""
    overrides: list[str] = Field([])
    dataset_overrides: dict[str, list[str]] = Field({})
    lr_of: str | None = None
    datasets: Names | None = None
    seeds: Seeds | None = None
    trained: bool = True
    pictured: bool = True


class Ablation(Section):
    """An ablation and its rows, {name: label}; each row is compared with the first one."""

    title: str
    rows: Annotated[dict[str, str], Field(min_length=2)]


class Study(Section):
    """The plan of a study.

    Attributes:
        title: of the page.
        command: what a reader types to run it.
        output: folder of all runs.
        datasets: by the names of their runs' folders.
        seeds: of the final runs; the learning rates are chosen with the first one.
        learning_rates: the ladder, in ascending order. Each method tries `first_rates`, then further rates of the
            ladder while its best is the lowest or highest tried.
        bases: model config, weights and overrides that rows share.
        overrides: for all runs.
        families: the methods that are compared with each other, by the title of their table.
        variants: rows that appear in ablations only.
        tested: rows that have a table of paired tests against every other row of their family.
        cross_set: rows whose models are tested on the other datasets as well.
    """

    title: str
    command: str
    output: FilePath
    datasets: Annotated[dict[str, StudySet], Field(min_length=1)]
    seeds: Seeds
    learning_rates: Rates
    first_rates: Rates
    overrides: list[str] = Field([])
    bases: dict[str, RowPlan]
    families: Annotated[dict[str, dict[str, StudyRow]], Field(min_length=1)]
    variants: dict[str, StudyRow] = Field({})
    ablations: list[Ablation] = Field([])
    tested: list[str] = Field([])
    cross_set: list[str] = Field([])

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        ladder = self.learning_rates
        if sorted(set(ladder)) != ladder:
            raise ValueError("learning_rates must rise")
        places = [ladder.index(rate) if rate in ladder else -1 for rate in self.first_rates]
        if -1 in places or places != list(range(places[0], places[0] + len(places))):
            raise ValueError("first_rates must be neighbours in learning_rates")
        if not self.choice_datasets:
            raise ValueError("datasets: one of them must have validation_images, to choose learning rates on")
        if len(self.rows) != sum(map(len, self.families.values())):
            raise ValueError("two families must not share the name of a row")
        if both := set(self.rows) & set(self.variants):
            raise ValueError(f"row {sorted(both)[0]} is in a family and in variants")
        for name, row in (self.rows | self.variants).items():
            if row.base not in self.bases:
                raise ValueError(f"row {name}: no base {row.base}; there are {', '.join(self.bases)}")
            if unknown := {*(row.datasets or ()), *row.dataset_overrides} - set(self.datasets):
                raise ValueError(f"row {name}: no dataset {sorted(unknown)[0]}; there are {', '.join(self.datasets)}")
            if others := set(row.seeds or ()) - set(self.seeds):
                raise ValueError(f"row {name}: no seed {min(others)}; there are {', '.join(map(str, self.seeds))}")
        if limited := [name for name, row in self.rows.items() if row.datasets or row.seeds]:
            raise ValueError(f"row {limited[0]}: only variants have datasets or seeds of their own")
        for name, row in self.variants.items():
            if row.lr_of not in self.rows or not self.rows[row.lr_of].trained:
                raise ValueError(f"variants.{name}.lr_of must name a trained row of a family")
        for key, names in {"tested": self.tested, "cross_set": self.cross_set}.items():
            if unknown := set(names) - set(self.rows):
                raise ValueError(f"{key}: no row {sorted(unknown)[0]}")
        for ablation in self.ablations:
            if unknown := set(ablation.rows) - set(self.rows) - set(self.variants):
                raise ValueError(f"ablation '{ablation.title}': no row {sorted(unknown)[0]}")
        return self

    @property
    def rows(self) -> dict[str, StudyRow]:
        """The rows of all families."""
        return {name: row for rows in self.families.values() for name, row in rows.items()}

    def shared_datasets(self, title: str) -> set[str]:
        """The datasets that all rows of a family or an ablation are run on."""
        rows = self.rows | self.variants
        ablation = next((each for each in self.ablations if each.title == title), None)
        names = self.families[title] if ablation is None else ablation.rows
        return set.intersection(*(set(rows[name].datasets or self.datasets) for name in names))

    @property
    def expected_runs(self) -> dict[str, list[tuple[str, int]]]:
        """The dataset and seed of each run of a row or variant."""
        return {
            name: [(dataset, seed) for dataset in row.datasets or self.datasets for seed in row.seeds or self.seeds]
            for name, row in (self.rows | self.variants).items()
        }

    @property
    def choice_datasets(self) -> list[str]:
        """The datasets that learning rates are chosen on."""
        return [name for name, dataset in self.datasets.items() if dataset.validation_images]

    def split_file(self, dataset: str) -> Path:
        """The split that learning rates are chosen with."""
        return self.output / "choice" / f"{dataset}.csv"


def read_study(path: Path) -> Study:
    """Reads a study. Raises: ConfigError that names file, key and fix."""
    return read_as(Study, path)
