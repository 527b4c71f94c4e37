"""Ranks that training chooses: proximal steps between those of the optimizer, and later one cut of all layers."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from .base import adapted_layers
from .salt import SALTLayer


@dataclass(frozen=True)
class LayerCut:
    """What a cut did to one layer.

    Attributes:
        svd_rank: how many singular values are still scaled and shifted.
        r_lora: the rank of the low-rank update that is left.
        error: ||W~ before - W~ after||_F, W~ being the adapted weight.
        bound: the norm of the dropped singular values of the change, which `error` cannot exceed.
        norm: ||W~ before||_F.
    """

    svd_rank: int
    r_lora: int
    error: float
    bound: float
    norm: float


def proximal_step(module: nn.Module, step: float) -> None:
    """Moves the layers of `module` towards fewer ranks, in place: soft thresholding of what they have learned.

    It is the proximal map of an l1 penalty on the changes of the scaled singular values and on the singular values of
    X Y. Each is weighted by how far a step of the optimizer moves it, so that one `step` fits all of them. n steps of
    Adam with the learning rate lr, on gradients that are noise, move an element by about lr * sqrt(n). So after every
    n steps, with `step` = lr * sqrt(n), what only noise has moved goes back to 0, and what the loss goes on pushing
    to one side does not. For a rate that changes, lr * sqrt(n) is the root of the sum of its squares.
    """
    if step > 0:
        for layer in _layers(module).values():
            layer.proximal_step(step)


def cut_ranks(module: nn.Module, budget: int | None = None) -> dict[str, LayerCut]:
    """Drops directions from the layers of `module`, in place, which replaces their parameters; returns what it did.

    A direction that the proximal steps have set to 0 is dropped. Of the others, those with the largest energy per
    parameter are kept, over all layers, while all kept ones have at most `budget` parameters: the energy of a scaled
    singular value (2 parameters) is its squared change, that of a term of X Y (2 r') its squared singular value.
    """
    layers = _layers(module)
    energies = [layer.energies() for layer in layers.values()]
    kept = _within(torch.cat([*energies, torch.empty(0)]), torch.cat([*_costs(layers), torch.empty(0)]), budget)
    ends = [0, *accumulate(energy.numel() for energy in energies)]
    cuts = {}
    for (name, layer), energy, (start, end) in zip(layers.items(), energies, pairwise(ends), strict=True):
        norm = float(torch.linalg.matrix_norm(layer.core()))
        of_layer = kept[start:end]
        values, terms = of_layer.tensor_split([layer.alpha.numel()])
        error = layer.cut(values, int(terms.sum()))
        bound = float(energy[~of_layer].sum().sqrt())
        cuts[name] = LayerCut(layer.alpha.numel(), layer.X.shape[1], error, bound, norm)
    return cuts


def _layers(module: nn.Module) -> dict[str, SALTLayer]:
    """The layers whose ranks may be cut; those that are frozen as a whole stay as they are."""
    layers = {name: layer for name, layer in adapted_layers(module) if isinstance(layer, SALTLayer)}
    return {name: layer for name, layer in layers.items() if any(p.requires_grad for p in layer.parameters())}


def _costs(layers: dict[str, SALTLayer]) -> Sequence[Tensor]:
    """The parameters of each direction, in the order of `energies`."""
    return [
        torch.tensor([2] * layer.alpha.numel() + [2 * len(layer.X)] * layer.X.shape[1]) for layer in layers.values()
    ]


def _within(energies: Tensor, costs: Tensor, budget: int | None) -> Tensor:
    """Which directions are kept (bool): greedily by energy per parameter. Those without energy never are."""
    kept = energies > 0
    if budget is None:
        return kept
    left = budget
    for index in torch.argsort(energies / costs, descending=True, stable=True).tolist():
        cost = int(costs[index])
        kept[index] &= cost <= left
        left -= cost if kept[index] else 0
    return kept
