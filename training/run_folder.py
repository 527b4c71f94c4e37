"""A run's folder: the names of its files, and whether a run in it starts, resumes or is finished."""

import difflib
import logging
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from checkpointing.tensor_files import SUFFIXES, check_writable_name
from evaluation.results import PER_IMAGE_FILE, RESULTS_FILE
from training.run_log import METRICS_FILE, TENSORBOARD_FOLDER
from training.state_files import StateFolder
from utils.config import Config
from utils.config.differences import check_config
from utils.errors import ConfigError, UserError
from utils.files import write_text

log = logging.getLogger(__name__)

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

    def check_config(self, config: Config) -> bool:
        """Whether `config` has more epochs than the run in this folder. Raises: UserError if other keys differ."""
        return check_config(self.config, self.config.read_text(encoding="utf-8"), config, self.config, longer=True)

    def continue_with(self, config: Config) -> None:
        """Replaces the config of the run; its results, which are those of fewer epochs, are removed first."""
        if self.config.read_text(encoding="utf-8") != config.to_yaml():
            self.results.unlink(missing_ok=True)
            write_text(self.config, config.to_yaml())


def weights_of(path: Path) -> Path:
    """A weights file: `path` itself, or the final weights of the run in the folder `path`, else its best epoch's.

    Raises: UserError that says what a folder, or the folder of a file that is not there, holds instead.
    """
    if path.is_file() and (path.suffix in SUFFIXES or zipfile.is_zipfile(path)):  # torch.save writes zip archives
        return path
    if path.is_file():
        raise UserError(
            f"{path}: is no file of weights, which end in {', '.join(SUFFIXES)}; {_weights_in(path.parent)}"
        )
    if path.is_dir():
        folder = RunFolder(path)
        final = [path / folder.owner.read_text(encoding="utf-8").strip()] if folder.owner.is_file() else []
        for weights in (*final, folder.best_weights):
            if weights.is_file():
                log.info("%s: its weights are %s", path, weights.name)
                return weights
        raise UserError(f"{path}: is a folder without a run's weights; {_weights_in(path)}")
    folder_there = next(parent for parent in path.absolute().parents if parent.is_dir())
    near = difflib.get_close_matches(path.name, [other.name for other in folder_there.iterdir()], n=1)
    if near and folder_there == path.absolute().parent:
        raise UserError(f"{path}: no such file of weights; did you mean {path.with_name(near[0])}?")
    raise UserError(f"{path}: no such file of weights; {_weights_in(path.parent)}")


def _weights_in(folder: Path) -> str:
    """Words that name the weights files in a folder and one level below it."""
    found = sorted(p for level in ("*", "*/*") for p in folder.glob(level) if p.suffix in SUFFIXES and p.is_file())
    if not found:
        return f"{folder} holds none" if folder.is_dir() else f"there is no folder {folder} either"
    return f"there are {', '.join(str(p) for p in found[:3])}" + (" and others" if len(found) > 3 else "")


def decide_start(
    folder: RunFolder, save_path: Path, config: Config, resume: Resume
) -> Literal["start", "resume", "finished"]:
    """How a run begins in a folder.

    Args:
        folder, save_path, config: the run's.
        resume: True resumes the run in the folder. "auto" resumes it where there is one, leaves it where it has as
            many epochs as `config` wants, and else starts. False starts.

    Raises:
        UserError: the folder holds another run, or none to resume.
        ConfigError: a `save_path` that cannot be written to.
    """
    status = folder.status
    if resume and status == "begun":
        folder.check_config(config)
        return "start"
    if resume == "auto":
        if status == "finished":
            more = folder.check_config(config) and folder.states.states()
            return "resume" if more else "finished"
        if status == "unfinished":
            return "resume"
    elif resume:
        folder.states.newest()
        return "resume"
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
