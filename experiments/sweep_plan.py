"""A sweep's plan: every row on every dataset with every seed, each a run of its own."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from training.run_folder import RunFolder
from training.run_weights import base_of
from utils.config import Config, load_config
from utils.config.errors import read_as
from utils.config.options import FilePath
from utils.config.schema import Section
from utils.errors import ConfigError, UserError
from utils.files import find_path

Names = Annotated[list[str], Field(min_length=1)]
Seeds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class RowPlan(Section):
    """A row: its model config, its base weights, and datasets and seeds where it has not all of them.

    `overrides` are its own, `dataset_overrides` its own on one dataset.
    """

    model_config_path: Annotated[FilePath, Field(alias="model_config")]
    pretrained_path: FilePath | None = None
    overrides: list[str] = Field([])
    dataset_overrides: dict[str, list[str]] = Field({})
    datasets: Names | None = None
    seeds: Seeds | None = None


class SweepPlan(Section):
    """What to run: rows x datasets x seeds.

    `overrides` are `section.key=value` texts for all of them, `dataset_overrides` for those of one dataset. Where two
    name one key, a dataset's counts before the plan's, and a row's before both.
    """

    output: FilePath
    seeds: Seeds = Field([0])
    datasets: Annotated[dict[str, FilePath], Field(min_length=1)]
    rows: Annotated[dict[str, RowPlan], Field(min_length=1)]
    overrides: list[str] = Field([])
    dataset_overrides: dict[str, list[str]] = Field({})


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep: a row on a dataset with a seed."""

    row: str
    dataset: str
    seed: int
    plan: SweepPlan

    @property
    def name(self) -> str:
        """row/dataset/seed, which is also its folder below the plan's output."""
        return f"{self.row}/{self.dataset}/{self.seed}"

    @property
    def folder(self) -> RunFolder:
        """The run's folder."""
        return RunFolder(self.plan.output / self.name)

    @property
    def state(self) -> Literal["done", "changed", "unfinished", "to do"]:
        """Whether it is finished, was begun with another config than the plan's, can be resumed, or has to start."""
        status = self.folder.status
        if self.folder.config.is_file() and self.changes:
            return "changed"
        if status == "finished":
            return "unfinished" if self.wants_more_epochs else "done"
        return "unfinished" if status == "unfinished" else "to do"

    @property
    def wants_more_epochs(self) -> bool:
        """Whether the plan has more epochs than the finished run."""
        folder = self.folder
        return folder.config.is_file() and folder.check_config(self.config())

    @property
    def changes(self) -> str:
        """The keys of the config that the plan has changed since the run in the folder began; else empty."""
        try:
            self.folder.check_config(self.config())
        except UserError as error:
            return str(error)
        return ""

    @property
    def save_path(self) -> Path:
        """The final weights."""
        return self.folder.path / "model.safetensors"

    def arguments(self, device: str) -> list[str]:
        """The command line of `main.py train` for this run."""
        row = self.plan.rows[self.row]
        arguments = ["train", "--data_config", str(self.plan.datasets[self.dataset])]
        arguments += ["--model_config", str(row.model_config_path), "--seed", str(self.seed), "--device", device]
        arguments += ["--save_path", str(self.save_path), "--resume", "auto"]
        if row.pretrained_path is not None:
            arguments += ["--pretrained_path", str(row.pretrained_path)]
        if self.overrides:
            arguments += ["--set", *self.overrides]
        return arguments

    @property
    def overrides(self) -> list[str]:
        """What `--set` gets: of two values for one key the last counts."""
        of_dataset = self.plan.dataset_overrides.get(self.dataset, [])
        row = self.plan.rows[self.row]
        return [*self.plan.overrides, *of_dataset, *row.overrides, *row.dataset_overrides.get(self.dataset, [])]

    def config(self) -> Config:
        """The resolved config of this run. Raises: ConfigError, as the run would."""
        row = self.plan.rows[self.row]
        files = row.model_config_path, self.plan.datasets[self.dataset]
        base = row.pretrained_path
        with suppress(UserError):  # weights that are missing, or not there yet: the run says so
            base = base_of(base) if base else None
        return load_config(*files, self.overrides, None, base, self.seed)


def read_plan(path: Path) -> SweepPlan:
    """Reads a plan; relative paths of configs start at it, or as in configs. Raises: ConfigError."""
    plan = read_as(SweepPlan, path := find_path(path))
    rows = {name: row.model_copy(update=_found(row, path.parent)) for name, row in plan.rows.items()}
    datasets = {name: find_path(file, path.parent) for name, file in plan.datasets.items()}
    return plan.model_copy(update={"datasets": datasets, "rows": rows})


def _found(row: RowPlan, folder: Path) -> dict[str, Path]:
    paths = {"model_config_path": row.model_config_path, "pretrained_path": row.pretrained_path}
    return {key: find_path(path, folder) for key, path in paths.items() if path is not None}


def sweep_runs(plan: SweepPlan, only: Sequence[str] = ()) -> list[SweepRun]:
    """The runs of a plan whose names match one of `only` (fnmatch patterns; none: all), one dataset after the other.

    Raises: ConfigError for a pattern without match, or a row with a dataset or seed that the plan does not have.
    """
    named = {f"row {name}": {*(row.datasets or ()), *row.dataset_overrides} for name, row in plan.rows.items()}
    for name, datasets in {**named, "dataset_overrides": set(plan.dataset_overrides)}.items():
        if unknown := datasets - set(plan.datasets):
            raise ConfigError(f"{name}: no dataset {sorted(unknown)[0]}; the plan has {', '.join(plan.datasets)}")
    for name, row in plan.rows.items():
        if others := set(row.seeds or ()) - set(plan.seeds):
            raise ConfigError(f"row {name}: no seed {min(others)}; the plan has {', '.join(map(str, plan.seeds))}")
    runs = [
        SweepRun(row, dataset, seed, plan)
        for dataset in plan.datasets
        for seed in plan.seeds
        for row, settings in plan.rows.items()
        if dataset in (settings.datasets or plan.datasets) and seed in (settings.seeds or plan.seeds)
    ]
    for pattern in only:
        if not any(fnmatchcase(run.name, pattern) for run in runs):
            raise ConfigError(f"--only {pattern}: matches no run, such as {runs[0].name}")
    return [run for run in runs if not only or any(fnmatchcase(run.name, pattern) for pattern in only)]
