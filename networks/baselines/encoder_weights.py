"""ImageNet weights for a baseline's encoder, from torchvision's state dicts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from networks.baselines.base import BaselineError, PaddedNetwork

_HEADS = ("fc.", "classifier.")  # ResNet's and VGG's classifier
_PREFIXES = {"vgg16_bn": "features.", "resnet101": ""}  # before the keys of the encoder
_COUNTER = ".num_batches_tracked"


@dataclass(frozen=True)
class EncoderReport:
    """What became of every key of a state dict."""

    loaded: tuple[str, ...]
    ignored: tuple[str, ...]

    def __str__(self) -> str:
        ignored = f", {len(self.ignored)} of the classifier ignored" if self.ignored else ""
        return f"{len(self.loaded)} encoder weights loaded{ignored}"


def load_encoder_weights(model: PaddedNetwork, state: Mapping[str, Tensor]) -> EncoderReport:
    """Loads a torchvision classifier's weights into the encoder of `model`, in place.

    Args:
        model: what `build` gave, at the paper's size: SegNet takes vgg16_bn; DeepLabV3+, Segformer and U-Net++ take
            resnet101 (`model.encoder_weights` names it).
        state: its state dict. The classifier's keys are ignored. BatchNorm's counters may be missing, as they are in
            files from before PyTorch 0.4.1; nothing here depends on them.

    Raises:
        BaselineError: a network without such an encoder; a key that is missing, unexpected or of another shape. The
            model is then unchanged.
    """
    if model.encoder_weights is None:
        raise BaselineError("this network has no encoder that takes torchvision's weights")
    prefix = _PREFIXES[model.encoder_weights]
    encoder = model.network.encoder
    target = {prefix + key: value for key, value in encoder.state_dict().items()}
    ignored = tuple(key for key in state if key.startswith(_HEADS))
    fitting = {key: value for key, value in state.items() if key not in ignored}
    _check_keys(model.encoder_weights, fitting, target)
    encoder.load_state_dict({key.removeprefix(prefix): value for key, value in {**target, **fitting}.items()})
    return EncoderReport(tuple(fitting), ignored)


def _check_keys(expected: str, fitting: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    missing = [key for key in target if key not in fitting and not key.endswith(_COUNTER)]
    unexpected = [key for key in fitting if key not in target]
    if missing or unexpected:
        raise BaselineError(
            f"the weights are not torchvision's {expected}: missing {_some(missing)}; unexpected {_some(unexpected)}"
        )
    for key, value in fitting.items():
        if value.shape != target[key].shape:
            raise BaselineError(
                f"the weights are not torchvision's {expected}: '{key}' has shape {tuple(value.shape)}, "
                f"the network needs {tuple(target[key].shape)}"
            )


def _some(keys: Sequence[str]) -> str:
    """'none', or the first keys and how many more there are."""
    if not keys:
        return "none"
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + more
