"""Adapters around any nn.Linear or nn.Conv2d: SALT, S-SAM's SVD tuning, LoRA. Knows nothing of SAM, data or configs."""

from adapters.base import AdaptedLayer, AdapterError, adapted_layers
from adapters.decomposition import Decomposition, decompose, is_decomposition
from adapters.inject import METHODS, adapter_parameters, count_parameters, inject, merge, regularization_loss
from adapters.lora import LoRALayer
from adapters.ranks import RankRule, Ranks
from adapters.salt import SALTLayer
from adapters.state import adapter_state_dict, load_adapter_state_dict
from adapters.svd import SVDLayer

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
