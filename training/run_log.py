"""The log of a run: one JSON line per epoch in metrics.jsonl, and the same numbers for the trackers."""

import json
import logging
import math
import numbers
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.trackers import Trackers
from utils.config.options import TrackerName
from utils.errors import UserError
from utils.files import disk_errors, write_text

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


class RunLog:
    """Writes metrics.jsonl and tensorboard/ of one run folder; usable as a context manager.

    Args:
        folder: the run's folder, made if missing.
        resume: continue the files that are there. Without it a log with lines in it is refused, never overwritten.
        trackers: where the numbers go beside metrics.jsonl (`training.trackers`).
        config: the run's settings, for the trackers that show them.

    Raises:
        UserError: the folder holds the log of an earlier run and `resume` is False, or the log is damaged.
    """

    def __init__(
        self,
        folder: Path,
        resume: bool = False,
        trackers: Sequence[TrackerName] = ("tensorboard",),
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.path = self.folder / METRICS_FILE
        if not resume and self.path.exists() and self.path.stat().st_size > 0:
            raise UserError(f"{self.path}: holds an earlier run's log; use --resume, or another --save_path")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._writer: SummaryWriter | None = None
        self._with_tensorboard = "tensorboard" in trackers
        self._trackers = Trackers(trackers, self.folder, config or {}, resume)
        self._purge_step: int | None = None  # TensorBoard hides what an earlier process wrote from this step on
        if self.path.exists():
            records = read_metrics(self.path)
            # A process killed while it wrote leaves half a line, which the next append would run into.
            self._rewrite(records)
            self._purge_step = max((record["epoch"] for record in records), default=-1) + 1

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def epoch(self, record: Mapping) -> None:
        """Append one epoch; on return the line is on the disk.

        Args:
            record: JSON-able, with the int key "epoch"; nested mappings are allowed. Every finite number in it becomes
                a TensorBoard scalar at that step, named by its keys joined by "/".

        Raises:
            KeyError: no "epoch".
            TypeError: an epoch that is no int, or a value that JSON cannot hold.
            ValueError: a number that is not finite, which JSON cannot hold.
            DiskError: the disk is full, for example.
        """
        step = record["epoch"]
        if not _is_epoch(step):  # `read_metrics` would refuse the line, and resuming with it
            raise TypeError(f"expected an int as epoch, got {step!r}")
        line = json.dumps(record, allow_nan=False)
        with disk_errors(self.path, "its lines before are whole"):
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
            if self._with_tensorboard:
                writer = self._tensorboard()
                for name, value in scalars(record):
                    writer.add_scalar(name, value, step)
                writer.flush()
        self._trackers.epoch(dict(scalars(record)), step)

    def pictures(self, pictures: Mapping[str, np.ndarray], step: int) -> None:
        """Show pictures (H, W, 3) uint8 by name. Raises: DiskError as `epoch`."""
        if self._with_tensorboard and pictures:
            with disk_errors(self.path, "its lines are whole"):
                writer = self._tensorboard()
                for name, picture in pictures.items():
                    writer.add_image(name, picture, step, dataformats="HWC")
                writer.flush()
        self._trackers.pictures(pictures, step)

    def truncate_after(self, epoch: int) -> None:
        """Drop the lines of epochs beyond `epoch`, which a resumed run writes again; TensorBoard hides them too."""
        records = read_metrics(self.path) if self.path.exists() else []
        kept = [record for record in records if record["epoch"] <= epoch]
        if len(kept) == len(records):
            return
        logger.info("%s: %d epochs after epoch %d dropped", self.path, len(records) - len(kept), epoch)
        self._rewrite(kept)
        self._close_tensorboard()
        self._purge_step = epoch + 1

    def close(self) -> None:
        """Finish the TensorBoard file and the trackers; the log itself may still be appended to."""
        self._close_tensorboard()
        self._trackers.close()

    def _rewrite(self, records: list[dict]) -> None:
        write_text(self.path, "".join(json.dumps(record) + "\n" for record in records))

    def _tensorboard(self) -> "SummaryWriter":
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # slow to import, and only runs need it

            self._writer = SummaryWriter(str(self.folder / TENSORBOARD_FOLDER), purge_step=self._purge_step)
            self._purge_step = None
        return self._writer

    def _close_tensorboard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class NoLog:
    """Replaces RunLog in a process that does not write."""

    def __enter__(self) -> "NoLog":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def epoch(self, record: Mapping) -> None:
        """Does nothing."""

    def truncate_after(self, epoch: int) -> None:
        """Does nothing."""

    def pictures(self, pictures: Mapping[str, np.ndarray], step: int) -> None:
        """Does nothing."""


def read_metrics(path: Path) -> list[dict]:
    """The records of a metrics.jsonl, in file order; a half-written last line is left out.

    Raises:
        UserError: the file is missing, or a line before the last is not a JSON object with an integer "epoch".
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    last = lines.pop()  # "" where the last line is whole: every line that was finished ends in a newline
    records = []
    for number, line in enumerate(lines, 1):
        record = _parse(line)
        if record is None:
            raise UserError(f"{path}: line {number} is not a JSON object with an epoch; delete that line")
        records.append(record)
    if last:
        final = _parse(last)
        if final is None:
            logger.warning("%s: half-written last line left out", path)
        else:
            records.append(final)
    return records


def scalars(record: Mapping) -> Iterator[tuple[str, float]]:
    """Every finite number of a record but its epoch, as (keys joined by "/", value); other values are passed over."""
    return ((name, value) for name, value in _flatten(record, "") if name != "epoch")


def _flatten(record: Mapping, prefix: str) -> Iterator[tuple[str, float]]:
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}/")
        elif isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value):
            yield f"{prefix}{key}", float(value)


def _parse(line: str) -> dict | None:
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        return None
    return record if isinstance(record, dict) and _is_epoch(record.get("epoch")) else None


def _is_epoch(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
