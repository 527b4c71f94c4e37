"""Adapters around any nn.Linear or nn.Conv2d: SALT, S-SAM's SVD tuning, LoRA. Knows nothing of SAM, data or configs."""

from .base import AdaptedLayer, AdapterError, adapted_layers
from .decomposition import Decomposition, decompose, is_decomposition
from .inject import METHODS, adapter_parameters, count_parameters, inject, merge, regularization_loss
from .lora import LoRALayer
from .ranks import RankRule, Ranks
from .salt import SALTLayer
from .state import adapter_state_dict, load_adapter_state_dict
from .svd import SVDLayer

__all__ = [
    "METHODS",
    "AdaptedLayer",
    "AdapterError",
    "Decomposition",
    "LoRALayer",
    "RankRule",
    "Ranks",
    "SALTLayer",
    "SVDLayer",
    "adapted_layers",
    "adapter_parameters",
    "adapter_state_dict",
    "count_parameters",
    "decompose",
    "inject",
    "is_decomposition",
    "load_adapter_state_dict",
    "merge",
    "regularization_loss",
]
