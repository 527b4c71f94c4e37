"""Predicts many files: skips those that cannot be read and, on request, those already predicted."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tqdm import tqdm

from networks.base import NonFiniteError
from prediction.outputs import Outputs
from prediction.prompt_file import ImagePrompts
from prediction.sources import Source
from utils.errors import ConfigError, UserError
from utils.files import DiskError

log = logging.getLogger(__name__)


@dataclass
class Summary:
    """The outcome: masks written, existing masks kept, images without prompt, and an error for each that failed."""

    written: int = 0
    kept: int = 0
    left_out: int = 0
    problems: list[UserError] = field(default_factory=list)
    files: dict[Path, Path] = field(default_factory=dict)  # each output, and its image


def predict_files(
    sources: Sequence[Source],
    outputs: Outputs,
    *,
    tile: bool = False,
    flips: bool | None = None,
    skip_existing: bool = False,
    prompts: Mapping[Path, ImagePrompts] | None = None,
) -> Summary:
    """Predicts the files one by one and writes their masks; memory grows by no more than their names.

    Args:
        sources: as `find_sources` returns them.
        outputs: writes the masks, and what else is wanted.
        tile, flips: see `Predictor`.
        skip_existing: skip images whose output files all exist.
        prompts: what is shown of each image, by the name of its mask; images without are left out.

    Raises:
        UserError: a file that no prediction wrote would be replaced; nothing is written then.
        DiskError: the disk is full, for example.
    """
    if not skip_existing:
        for source in sources:
            if prompts is None or source.stem in prompts:
                outputs.check_replaceable(source.stem)
    summary = Summary()
    for source in tqdm(sources, desc="predict", unit="file", disable=None):
        try:
            _predict_file(source, outputs, summary, tile, flips, skip_existing, prompts)
        except DiskError:  # the next file could not be written either
            raise
        except (ConfigError, NonFiniteError) as error:  # such as an intensity window that does not fit this image
            summary.problems.append(UserError(f"{source.path}: {error}"))
        except UserError as error:
            summary.problems.append(error)
        except (OSError, ValueError, MemoryError, torch.OutOfMemoryError) as error:
            reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
            summary.problems.append(UserError(f"{source.path}: cannot be predicted ({reason})"))
    return summary


def _predict_file(
    source: Source,
    outputs: Outputs,
    summary: Summary,
    tile: bool,
    flips: bool | None,
    skip_existing: bool,
    prompts: Mapping[Path, ImagePrompts] | None,
) -> None:
    stems = source.stems()
    wanted = [stem for stem in stems if prompts is None or stem in prompts]
    if not wanted:
        summary.left_out += len(stems)
        return
    for path in (path for stem in wanted for path in outputs.paths(stem)):
        if path in summary.files:
            raise UserError(f"{source.path}: its {path} is that of {summary.files[path]} already; rename one")
        summary.files[path] = source.path
    if skip_existing and all(outputs.is_complete(stem) for stem in wanted):
        summary.kept += len(wanted)
        return
    count = 0
    for stem, image in zip(stems, source.images(outputs.predictor.transform), strict=False):
        count += 1
        if stem not in wanted:
            summary.left_out += 1
            continue
        outputs.check_replaceable(stem)
        shown = None if prompts is None else prompts[stem].prompts(image.shape[:2])
        outputs.write(stem, image, outputs.predictor.array_logits(image, tile=tile, flips=flips, prompts=shown))
        summary.written += 1
    if count < len(stems):
        raise UserError(f"{source.path}: holds {count} of the {len(stems)} frames that it promises")
