"""Several models as one predictor: the mean of their probabilities."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from networks.labels import label_indices
from prediction.interaction import Prompt
from prediction.predictor import Predictor
from utils.errors import UserError

# Keeps logits of certain pixels finite in float64; far below what float32 logits tell apart.
_SMALLEST = 1e-12


@dataclass(frozen=True, repr=False)
class Ensemble(Predictor):
    """A predictor whose logits are those of the members' mean probability. Its other attributes are the first's.

    Attributes:
        members: of different folds, seeds or methods; each prepares the image as in its own training.
    """

    members: Sequence[Predictor] = ()

    def __repr__(self) -> str:
        return f"Ensemble of {len(self.members)}, the first is\n{super().__repr__()}"

    @property
    def sees_windows(self) -> bool:
        """Whether any member sees windows."""
        return any(member.sees_windows for member in self.members)

    def array_logits(
        self,
        image: np.ndarray,
        labels: Sequence[str] | None = None,
        *,
        tile: bool = False,
        flips: bool | None = None,
        prompts: Mapping[str, Prompt] | None = None,
    ) -> Tensor:
        """The logits of some labels, by default all: (L, H, W) float32 on the CPU. Raises: as `predict`."""
        labels = self.labels if labels is None else labels
        label_indices(labels, self.labels)
        total: Tensor | float = 0.0
        for member in self.members:
            total = total + torch.sigmoid(
                member.array_logits(image, labels, tile=tile, flips=flips, prompts=prompts).double()
            )
        return torch.logit(torch.as_tensor(total) / len(self.members), eps=_SMALLEST).float()


def average(predictors: Sequence[Predictor], names: Sequence[str], tile_overlap: float | None = None) -> Predictor:
    """One predictor for all of them, or the only one itself.

    Args:
        names: of the checkpoints, for errors.
        tile_overlap: replaces that of all.

    Raises: UserError if they differ in labels, their values or the intensities that they expect.
    """
    if tile_overlap is not None:
        predictors = [replace(predictor, tile_overlap=tile_overlap) for predictor in predictors]
    first = predictors[0]
    for name, other in zip(names[1:], predictors[1:], strict=True):
        for what, ours, theirs in (
            ("labels", first.labels, other.labels),
            ("mask values", first.values, other.values),
            ("a_min, a_max", _window(first), _window(other)),
        ):
            if list(ours) != list(theirs):
                raise UserError(
                    f"{name}: its {what} are {list(theirs)}, those of {names[0]} {list(ours)}; average equal ones"
                )
    if len(predictors) == 1:
        return first
    return Ensemble(**{field.name: getattr(first, field.name) for field in fields(Predictor)}, members=predictors)


def _window(predictor: Predictor) -> tuple[float | None, float | None]:
    return predictor.transform.a_min, predictor.transform.a_max
