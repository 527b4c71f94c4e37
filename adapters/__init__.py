"""Adapters around any nn.Linear or nn.Conv2d: SALT and others. Knows nothing of SAM, data or configs.

The names are imported on their first use, since `adapters.registry` must not need torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .registry import METHODS

if TYPE_CHECKING:
    from .base import AdaptedLayer, AdapterError, adapted_layers
    from .decomposition import Decomposition, decompose, is_decomposition
    from .files import load_adapters, save_adapters
    from .injection import adapter_parameters, count_parameters, inject, merge, regularization_loss
    from .lora import LoRALayer
    from .pruning import LayerCut, cut_ranks, proximal_step
    from .ranks import RankRule, Ranks
    from .salt import SALTLayer
    from .state import adapter_state_dict, load_adapter_state_dict
    from .svd import SVDLayer

__all__ = [
    "METHODS",
    "AdaptedLayer",
    "AdapterError",
    "Decomposition",
    "LayerCut",
    "LoRALayer",
    "RankRule",
    "Ranks",
    "SALTLayer",
    "SVDLayer",
    "adapted_layers",
    "adapter_parameters",
    "adapter_state_dict",
    "count_parameters",
    "cut_ranks",
    "decompose",
    "inject",
    "is_decomposition",
    "load_adapter_state_dict",
    "load_adapters",
    "merge",
    "proximal_step",
    "regularization_loss",
    "save_adapters",
]

__version__ = "0.1.0"

_FILES = {
    "base": ("AdaptedLayer", "AdapterError", "adapted_layers"),
    "decomposition": ("Decomposition", "decompose", "is_decomposition"),
    "files": ("load_adapters", "save_adapters"),
    "injection": ("adapter_parameters", "count_parameters", "inject", "merge", "regularization_loss"),
    "pruning": ("LayerCut", "cut_ranks", "proximal_step"),
    "ranks": ("RankRule", "Ranks"),
    "state": ("adapter_state_dict", "load_adapter_state_dict"),
}


def __getattr__(name: str) -> Any:
    for file, names in _FILES.items():
        if name in names:
            return getattr(import_module(f".{file}", __name__), name)
    for method in METHODS.values():
        if method.home.endswith(f".{name}"):
            return method.layer
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
