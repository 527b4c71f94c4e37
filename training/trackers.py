"""wandb, MLflow and Comet beside the run's own log, through Accelerate's trackers. None of them can end a run."""

import json
import logging
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from utils.config.options import TrackerName
from utils.extras import extra
from utils.files import write_json

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

log = logging.getLogger(__name__)

PROJECT = "salt"
IDS_FILE = "trackers.json"


class Trackers:
    """The trackers of one run, open until `close`. One that fails is closed with a warning, and the run goes on.

    Where they write, online or offline, is set by their own environment variables (WANDB_MODE, MLFLOW_TRACKING_URI,
    COMET_START_ONLINE and others); what they keep on this machine lies in the run's folder otherwise.

    Args:
        names: those wanted; "tensorboard" is `RunLog`'s own.
        folder: the run's; a resumed run goes on with the trackers' runs whose ids lie there.
        config: the run's settings, shown by the trackers.
    """

    def __init__(self, names: Sequence[TrackerName], folder: Path, config: Mapping[str, Any], resume: bool) -> None:
        self._folder, self._config = folder, config
        self._ids: dict[str, str] = {}
        self._open: dict[str, GeneralTracker] = {}  # Accelerate's classes, imported where one is wanted
        path = folder / IDS_FILE
        if resume and path.is_file():
            self._guarded(IDS_FILE, lambda: self._ids.update(json.loads(path.read_text(encoding="utf-8"))))
        starts = {"wandb": self._wandb, "mlflow": self._mlflow, "comet": self._comet}
        for name, start in starts.items():
            if name in names:
                self._guarded(name, partial(self._start, name, start))
        if self._open:
            self._guarded(IDS_FILE, lambda: write_json(path, self._ids))

    def epoch(self, values: Mapping[str, float], step: int) -> None:
        """Sends the numbers of an epoch."""
        for name, tracker in list(self._open.items()):
            self._guarded(name, partial(tracker.log, dict(values), step=step))

    def pictures(self, pictures: Mapping[str, np.ndarray], step: int) -> None:
        """Sends pictures (H, W, 3) uint8 by name, to wandb and Comet."""
        for name, send in {"wandb": _to_wandb, "comet": _to_comet}.items():
            if tracker := self._open.get(name):
                self._guarded(name, partial(send, tracker, pictures, step))

    def close(self) -> None:
        """Ends the trackers' runs."""
        for name, tracker in list(self._open.items()):
            self._guarded(name, tracker.finish)
        self._open.clear()

    def _start(self, name: str, start: "Callable[[str | None], tuple[GeneralTracker, str]]") -> None:
        known = self._ids.get(name)
        tracker, self._ids[name] = start(known)
        self._open[name] = tracker
        if known is None:
            numbers = int | float | str
            tracker.store_init_configuration(
                {key: value if isinstance(value, numbers) else str(value) for key, value in self._config.items()}
            )

    def _wandb(self, known: str | None) -> "tuple[GeneralTracker, str]":
        _package("wandb")
        from accelerate.tracking import WandBTracker

        run = known or uuid.uuid4().hex[:8]
        project = os.environ.get("WANDB_PROJECT", PROJECT)
        tracker = WandBTracker(project, name=self._folder.name, dir=str(self._folder), id=run, resume="allow")
        tracker.start()
        return tracker, run

    def _mlflow(self, known: str | None) -> "tuple[GeneralTracker, str]":
        mlflow = _package("mlflow")
        from accelerate.tracking import MLflowTracker

        if "MLFLOW_TRACKING_URI" not in os.environ:
            mlflow.set_tracking_uri(f"sqlite:///{self._folder.resolve()}/mlflow.db")
        tracker = MLflowTracker(PROJECT, run_id=known, run_name=self._folder.name)
        tracker.start()
        return tracker, tracker.tracker.info.run_id

    def _comet(self, known: str | None) -> "tuple[GeneralTracker, str]":
        os.environ.setdefault("COMET_DISABLE_AUTO_LOGGING", "1")  # it would patch torch
        comet_ml = _package("comet_ml")
        from accelerate.tracking import CometMLTracker

        settings = comet_ml.ExperimentConfig(name=self._folder.name, offline_directory=str(self._folder))
        tracker = CometMLTracker(PROJECT, experiment_key=known, experiment_config=settings)
        tracker.start()
        return tracker, tracker.tracker.get_key()

    def _guarded(self, name: str, work: Callable[[], Any]) -> None:
        try:
            work()
        except Exception as error:  # whatever it is, it is not worth the run
            reason = " ".join(str(error).split()) or type(error).__name__
            log.warning("tracker %s: %s; the run goes on without it", name, reason)
            self._open.pop(name, None)


def _to_wandb(tracker: "GeneralTracker", pictures: Mapping[str, np.ndarray], step: int) -> None:
    tracker.log_images({name: [picture] for name, picture in pictures.items()}, step=step)


def _to_comet(tracker: "GeneralTracker", pictures: Mapping[str, np.ndarray], step: int) -> None:
    for name, picture in pictures.items():
        tracker.tracker.log_image(Image.fromarray(picture), name, step=step)


def _package(name: str) -> ModuleType:
    return extra(name, "it", "requirements-trackers.txt")
