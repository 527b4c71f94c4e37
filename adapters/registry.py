"""The adapter methods, a line for each. Needs no torch: the command line knows the methods before torch loads."""

import inspect
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .base import AdaptedLayer


@dataclass(frozen=True)
class Method:
    """One method; its name is also the training strategy that uses it.

    Attributes:
        home: "file.Class", the subclass of `AdaptedLayer` and its file in this folder.
        title: the method's name in tables.
        ranks: the fields of `Ranks` that it uses.
        prunable: whether its ranks can be cut after training (`adapters.pruning`).
    """

    home: str
    title: str
    ranks: tuple[str, ...] = ()
    prunable: bool = False

    @property
    def layer(self) -> "type[AdaptedLayer]":
        """The class; the first use imports its file."""
        file, name = self.home.split(".")
        return getattr(import_module(f".{file}", __package__), name)

    @property
    def options(self) -> list[str]:
        """The options of the class's `build`, besides the layer and its ranks. A config's `ft` has the same names."""
        return list(inspect.signature(self.layer.build).parameters)[2:]


METHODS = {
    "salt": Method("salt.SALTLayer", "SALT", ("svd_rank", "r_lora"), prunable=True),
    "svd": Method("svd.SVDLayer", "S-SAM"),
    "lora": Method("lora.LoRALayer", "LoRA", ("r_lora",)),
    "rslora": Method("rslora.RsLoRALayer", "rsLoRA", ("r_lora",)),
    "dora": Method("dora.DoRALayer", "DoRA", ("r_lora",)),
    "pissa": Method("pissa.PiSSALayer", "PiSSA", ("r_lora",)),
    "milora": Method("milora.MiLoRALayer", "MiLoRA", ("r_lora",)),
    "kasa": Method("kasa.KaSALayer", "KaSA", ("r_lora",)),
    "ssf": Method("ssf.SSFLayer", "SSF"),
    "adaptformer": Method("adaptformer.AdaptFormerLayer", "AdaptFormer", ("r_lora",)),
}
