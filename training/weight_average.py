"""An exponential moving average of the trained weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """average = d * average + (1 - d) * weights after every optimizer step, over the trained parameters.

    d = min(decay, (1 + n) / (10 + n)) at the n-th step, so that the average of a short run forgets the first weights.
    Buffers, such as BatchNorm's statistics, are not averaged.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._average = {name: p.detach().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Adds the current weights; called after every optimizer step."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        for name, parameter in self._parameters.items():
            self._average[name].lerp_(parameter, 1 - decay)

    @torch.no_grad()
    def apply(self) -> None:
        """Replaces the weights by the average."""
        for name, parameter in self._parameters.items():
            parameter.copy_(self._average[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Context manager: the model has the averaged weights."""
        weights = {name: p.detach().clone() for name, p in self._parameters.items()}
        self.apply()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in self._parameters.items():
                    parameter.copy_(weights[name])

    def state_dict(self) -> dict[str, int | dict[str, Tensor]]:
        """The state that `load_state_dict` restores, on the CPU."""
        return {"steps": self.steps, "average": {name: t.cpu().clone() for name, t in self._average.items()}}

    def load_state_dict(self, state: Mapping) -> None:
        """Restores a saved average of the same parameters."""
        self.steps = state["steps"]
        for name, tensor in self._average.items():
            tensor.copy_(state["average"][name])
