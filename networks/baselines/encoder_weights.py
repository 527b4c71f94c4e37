"""ImageNet weights for a baseline's encoder, from torchvision's state dicts."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from checkpointing.load_report import LoadReport, load_keys
from networks.baselines.base import PaddedNetwork
from utils.errors import UserError

_CLASSIFIERS = ("fc.", "classifier.")  # ResNet's and VGG's
_COUNTER = ".num_batches_tracked"


def load_encoder_weights(model: PaddedNetwork, state: Mapping[str, Tensor], path: Path) -> LoadReport:
    """Loads a torchvision classifier's weights into the encoder of `model`, in place.

    Args:
        model: a baseline at the paper's size: SegNet takes vgg16_bn; DeepLabV3+, Segformer and U-Net++ take resnet101
            (`model.encoder_weights` names it).
        state: the classifier's state dict. BatchNorm's counters may be missing, as they are in files from before
            PyTorch 0.4.1; nothing here depends on them.
        path: the file that the state came from, for errors.

    Raises:
        UserError: a network without such an encoder; a key that is missing, unexpected or of another shape. The model
            is then unchanged.
    """
    expected = model.encoder_weights
    if expected is None:
        raise UserError(f"{path}: this network has no encoder that takes torchvision's weights; leave the file out")
    encoder = model.network.get_submodule("encoder")
    classifier = nn.ModuleDict({"features": encoder}) if expected == "vgg16_bn" else encoder  # torchvision's names
    target = {key: v for key, v in classifier.state_dict().items() if key in state or not key.endswith(_COUNTER)}
    try:
        return load_keys(
            classifier,
            state,
            target,
            path,
            is_unused=lambda key: key.startswith(_CLASSIFIERS),
            why_unused="the classifier",
        )
    except UserError as error:
        raise UserError(f"{error}; this network takes torchvision's {expected}") from error
