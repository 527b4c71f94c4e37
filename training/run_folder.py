"""A run's folder: the names of its files, and whether a run in it starts, resumes or is finished."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from checkpointing.tensor_files import check_writable_name
from evaluation.results import PER_IMAGE_FILE, RESULTS_FILE
from training.run_log import METRICS_FILE, TENSORBOARD_FOLDER
from training.state_files import StateFolder
from utils.config import Config
from utils.config.differences import check_config
from utils.errors import ConfigError, UserError
from utils.files import DiskError, remove_leftovers, write_text
from utils.lock import locked

Status = Literal["empty", "begun", "unfinished", "finished"]
Resume = bool | Literal["auto"]


@dataclass(frozen=True)
class RunFolder:
    """The paths in a run's folder."""

    path: Path

    @classmethod
    def of(cls, save_path: Path) -> Self:
        """The folder of the run whose final weights go to `save_path`.

        It is the folder of the weights, or one in it named after them where another run has that one. So
        `--save_path runs/x/model.safetensors` keeps everything in runs/x, and checkpoints/salt_model.pth and
        checkpoints/lora_model.pth do not overwrite each other's records.
        """
        folder = cls(save_path.parent)
        if not folder.owner.is_file() or folder.owner.read_text(encoding="utf-8").strip() == save_path.name:
            return folder
        return cls(save_path.parent / save_path.stem)

    @property
    def owner(self) -> Path:
        """Holds the name of the run's final weights file."""
        return self.path / "run.txt"

    @property
    def row(self) -> Path:
        """Holds the name of the run's row in the plan of a sweep."""
        return self.path / "row.txt"

    @property
    def config(self) -> Path:
        """The resolved config."""
        return self.path / "config.yaml"

    @property
    def data_split(self) -> Path:
        """The split of every image as this run uses it."""
        return self.path / "data_split.csv"

    @property
    def environment(self) -> Path:
        """Versions, commit and device."""
        return self.path / "environment.json"

    @property
    def metrics(self) -> Path:
        """One JSON line an epoch."""
        return self.path / METRICS_FILE

    @property
    def tensorboard(self) -> Path:
        """The folder of TensorBoard's files."""
        return self.path / TENSORBOARD_FOLDER

    @property
    def curves(self) -> Path:
        """The picture of loss, Dice and learning rate."""
        return self.path / "curves.png"

    @property
    def overlays(self) -> Path:
        """The folder of pictures: image, truth, prediction, errors."""
        return self.path / "overlays"

    @property
    def predictions(self) -> Path:
        """The folder of the masks of all test samples, 0/255 at the images' own size."""
        return self.path / "predictions"

    @property
    def results(self) -> Path:
        """The scores; a run that has them is finished."""
        return self.path / RESULTS_FILE

    @property
    def per_image(self) -> Path:
        """The scores of each image."""
        return self.path / PER_IMAGE_FILE

    @property
    def best_weights(self) -> Path:
        """The weights of the epoch with the best validation Dice."""
        return self.path / "best_val.safetensors"

    @property
    def states(self) -> StateFolder:
        """All that resuming needs."""
        return StateFolder(self.path / "last")

    @property
    def lock(self) -> Path:
        """Locked by the process that runs here."""
        return self.path / "lock"

    @property
    def log(self) -> Path:
        """What the run said on the console."""
        return self.path / "log.txt"

    @property
    def status(self) -> Status:
        """What is in the folder.

        "begun" is a run that stopped before it had a state to save, "unfinished" one that can be resumed.
        """
        if self.results.is_file():
            return "finished"
        if self.states.states():
            return "unfinished"
        return "begun" if self.config.is_file() else "empty"

    @property
    def _files(self) -> tuple[Path, ...]:
        inputs = (self.owner, self.row, self.config, self.data_split, self.environment)
        return (*inputs, self.log, self.metrics, self.curves, self.best_weights, self.per_image, self.results)

    @contextmanager
    def locked(self, save_path: Path) -> Iterator[None]:
        """Context manager: no other process runs here. What a killed one wrote half is removed first.

        Raises: UserError if one does. An error of the disk says from where the run goes on.
        """
        busy = f"{self.path}: another process runs here; wait for it, or give another --save_path"
        with locked(self.lock, busy):
            self._remove_leftovers(save_path)
            try:
                yield
            except DiskError as error:
                if not self.states.states():
                    raise
                raise DiskError(f"{error}; --resume goes on from {self.states.folder}, which is whole") from error

    def _remove_leftovers(self, save_path: Path) -> None:
        remove_leftovers(self.path, [path.name for path in self._files])
        remove_leftovers(save_path.parent, [save_path.name])
        if self.owner.is_file():
            self.states.drop_old()
        for folder in (self.overlays, self.predictions):
            for inner in (folder, *folder.rglob("*/")):
                remove_leftovers(inner)

    def remove(self, save_path: Path) -> None:
        """Removes what the run wrote, and nothing else. Raises: as `locked`."""
        with self.locked(save_path):
            self.results.unlink(missing_ok=True)  # first: from here on it is not finished
            self.states.clear()
            for file in (*self._files[1:], save_path, self.owner):  # run.txt last: it says whose the others are
                file.unlink(missing_ok=True)
            for folder in (self.tensorboard, self.overlays, self.predictions):
                shutil.rmtree(folder, ignore_errors=True)

    def check_config(self, config: Config) -> bool:
        """Whether `config` trains more epochs than the run in this folder. Raises: UserError if other keys differ."""
        longer = check_config(self.config, self.config.read_text(encoding="utf-8"), config, self.config, longer=True)
        return longer and config.strategy != "none"

    def check_own(self) -> None:
        """Raises UserError where a run's first file, run.txt, is missing, and others that it would replace are not."""
        if self.owner.is_file():
            return
        for file in (*self._files, *self.states.states()):
            if file.exists() and file not in (self.row, self.log):  # a sweep writes these two before
                raise UserError(f"{file}: exists, and no run wrote it; give a --save_path in another folder")

    def continue_with(self, config: Config) -> None:
        """Replaces the config of the run; its results, which are those of fewer epochs, are removed first."""
        if self.config.read_text(encoding="utf-8") != config.to_yaml():
            self.results.unlink(missing_ok=True)
            write_text(self.config, config.to_yaml())


def decide_start(
    folder: RunFolder, save_path: Path, config: Config, resume: Resume
) -> Literal["start", "resume", "finished"]:
    """How a run begins in a folder.

    Args:
        folder, save_path, config: the run's.
        resume: True resumes the run in the folder. "auto" resumes it where there is one, leaves it where it has as
            many epochs as `config` wants, and else starts. False starts.

    Raises:
        UserError: the folder holds another run, or none to resume, or files that no run wrote.
        ConfigError: a `save_path` that cannot be written to.
    """
    status = folder.status
    if status in ("empty", "begun") or not folder.config.is_file():
        folder.check_own()
    if resume and status == "begun":
        folder.check_config(config)
        return "start"
    if resume == "auto":
        if status == "finished":
            if not folder.check_config(config):
                return "finished"
            if not folder.states.states():
                raise UserError(
                    f"{folder.path}: has fewer epochs than {config.training.num_epochs}, and no state in last/ to go "
                    "on from; remove the run, give another --save_path, or set training.num_epochs back"
                )
            return "resume"
        if status == "unfinished":
            return "resume"
    elif resume:
        folder.states.newest()
        return "resume"
    if config.training.patience is not None and config.require_data().val == "test":
        raise ConfigError(
            "training.patience is set, and data.val = test: a run that ends by its test images falsifies the scores of "
            "its last weights too; leave one of them out"
        )
    check_writable_name(save_path, "--save_path")
    if save_path.name == folder.best_weights.name:
        raise ConfigError(f"--save_path {save_path}: that name is kept for the best epoch; choose another")
    if status == "finished":
        raise UserError(
            f"{folder.path}: holds a finished run; give another --save_path, or remove it; "
            "--resume with a larger training.num_epochs trains it further"
        )
    if folder.metrics.exists() or folder.states.has_progress:
        raise UserError(f"{folder.path}: holds an unfinished run; resume it with --resume, or give another --save_path")
    if save_path.exists():
        raise UserError(f"{save_path}: exists already; give another --save_path, or remove it")
    return "start"
