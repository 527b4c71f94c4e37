"""The states of an unfinished run on the disk: the newest and the one before, each with its checksum."""

import logging
from pathlib import Path
from typing import Any

import torch

from checkpointing.tensor_files import read_tensor_file
from utils.errors import UserError
from utils.files import atomic_path, remove_leftovers, sha256, write_text

log = logging.getLogger(__name__)

KEPT = 2
_FIRST = 1
_STATES = "state_[0-9]*.pth"


class StateFolder:
    """A folder of state_000001.pth, state_000002.pth, ..., of which the last two are kept.

    A state is valid once state_N.pth.sha256 (as `sha256sum -c` reads it) lies beside it. That file is written last,
    and no valid state is ever overwritten. So a valid state remains when a process is killed or a disk is full.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def states(self) -> list[Path]:
        """The valid states, newest first; only `newest` checks whether they are undamaged."""
        return sorted((path.with_suffix("") for path in self.folder.glob(f"{_STATES}.sha256")), reverse=True)

    @property
    def has_progress(self) -> bool:
        """Whether there is more than the first state, which a run writes before it trains."""
        return any(_number(path) > _FIRST for path in self.states())

    def save(self, state: dict[str, Any]) -> Path:
        """Writes a state, then drops all but the last two. Raises: DiskError, with every earlier state as it was."""
        remove_leftovers(self.folder)
        number = max((_number(path) for path in self.folder.glob(f"{_STATES}*")), default=_FIRST - 1) + 1
        path = self.folder / f"state_{number:06d}.pth"
        with atomic_path(path) as temporary:
            with temporary.open("wb") as file:  # torch's own writer would hide the reason of an error
                torch.save(state, file)
            digest = sha256(temporary)
        write_text(_checksum_file(path), f"{digest}  {path.name}\n")
        self._drop_all_but(self.states()[:KEPT])
        return path

    def newest(self) -> Path:
        """The file of the newest undamaged state. Raises: UserError where there is none."""
        states = self.states()
        for path in states:
            problem = _damage(path)
            if problem is None:
                return path
            log.warning("%s: %s; the state before it is used", path, problem)
        if states:
            raise UserError(
                f"{self.folder}: every state in it is damaged; give another --save_path, or remove the run, "
                "and train again"
            )
        raise UserError(f"{self.folder}: nothing to resume; start without --resume")

    def read(self, path: Path) -> dict[str, Any]:
        """Reads a file that `newest` returned."""
        return read_tensor_file(path)[0]

    def drop_old(self) -> None:
        """Drops what a process that was killed while it saved did not come to drop."""
        remove_leftovers(self.folder)
        self._drop_all_but(self.states()[:KEPT])

    def clear(self) -> None:
        """Removes every state."""
        remove_leftovers(self.folder)
        self._drop_all_but([])

    def _drop_all_but(self, kept: list[Path]) -> None:
        wanted = {*kept, *(_checksum_file(path) for path in kept)}
        # Checksums first: a state without one is not valid, a checksum without its state would be reported as damaged.
        for path in sorted(self.folder.glob(f"{_STATES}*"), key=lambda path: path.suffix == ".pth"):
            if path not in wanted:
                path.unlink(missing_ok=True)


def _damage(path: Path) -> str | None:
    expected = _checksum_file(path).read_text(encoding="utf-8", errors="replace").partition(" ")[0]
    if not path.is_file():
        return "is missing"
    return None if sha256(path) == expected else "is damaged: its SHA-256 does not match"


def _checksum_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _number(path: Path) -> int:
    digits = path.name.removeprefix("state_").partition(".")[0]
    return int(digits) if digits.isdecimal() else 0
