"""What a frozen image encoder gives for each image, computed once in a run."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd

from networks.base import SegmentationModel
from training.processes import Processes
from utils.errors import ConfigError

_GIBIBYTE = 1 << 30


class EmbeddingCache:
    """Keeps `model.encode`'s output of each image, on the CPU, until the memory is used up.

    What does not fit is computed anew. The results are those of the encoder itself up to rounding, since each image is
    encoded alone.

    Args:
        model: its image encoder must give the same in every epoch.
        processes: this process keeps the images that it meets.
        gibibytes: of memory for this process.

    Raises:
        ConfigError: the encoder is trained, draws dropout, or is missing.
    """

    def __init__(self, model: SegmentationModel, processes: Processes, gibibytes: float) -> None:
        _check_frozen(model)
        self.model, self.processes, self.left = model, processes, int(gibibytes * _GIBIBYTE)
        self._kept: dict[str, list[Tensor]] = {}

    def encoded(self, images: Tensor, names: Sequence[str]) -> list[Tensor]:
        """`model.encode(images)` for images (B, 3, S, S); those of one name are the same image."""
        found: dict[str, list[Tensor]] = {}
        for name, image in zip(names, images, strict=True):
            if name not in found:
                found[name] = self._kept.get(name) or self._computed(name, image)
        parts = zip(*(found[name] for name in names), strict=True)
        return [torch.stack([tensor.to(images.device) for tensor in part]) for part in parts]

    def _computed(self, name: str, image: Tensor) -> list[Tensor]:
        """The output for one image (3, S, S) alone, so that it depends on no other: a resumed run has the same bits."""
        # Validation runs in inference mode, whose tensors no later training step could use.
        with torch.inference_mode(False), torch.no_grad(), self.processes.accelerator.autocast():
            tensors = [tensor[0] for tensor in self.model.encode(image[None].clone())]
        size = sum(tensor.nbytes for tensor in tensors)
        if size <= self.left:
            self.left -= size
            self._kept[name] = [tensor.cpu() for tensor in tensors]
        return tensors


def _check_frozen(model: SegmentationModel) -> None:
    encoder = getattr(model, "image_encoder", None)
    if encoder is None:
        raise ConfigError("training.cache_embeddings: a network without prompts has no image encoder to keep; set 0")
    if trained := [name for name, parameter in encoder.named_parameters() if parameter.requires_grad]:
        raise ConfigError(
            f"training.cache_embeddings: the strategy trains the image encoder, such as 'image_encoder.{trained[0]}'; "
            "give --training_strategy decoder, or set 0"
        )
    if any(isinstance(module, _DropoutNd) and module.p > 0 for module in encoder.modules()):
        raise ConfigError("training.cache_embeddings: the image encoder draws dropout; set ft.lora_dropout: 0")
