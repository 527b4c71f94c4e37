"""A trained model in other programs' formats."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

import adapters
import checkpoint
from model import load_model
from models.prompted import PromptedModel
from utils.config_schema import SAM2_ARCH
from utils.errors import UserError
from utils.files import atomic_path
from utils.tensor_files import TORCH_SUFFIXES, check_writable_name, read_tensor_file, unwrapped_state_dict


def export_sam(path: Path, output: Path, half: bool = False, pretrained_path: Path | None = None) -> None:
    """Writes the merged model as an official state dict: the stock package, built at the same size, loads it strictly.

    For SAM2 the base file's memory modules come along, where it has them; its .pt holds {"model": state dict}, as the
    package expects. The text prompt has no place in these formats and is left out.

    Args:
        path: a weights file of this project.
        output: .safetensors, or .pth as segment_anything's own loader expects.
        half: store float16.
        pretrained_path: where the base weights lie now, if they have moved since training.

    Raises:
        UserError: the model attends as the released code does, which segment_anything's encoder cannot; or it is a
            baseline, which has no such format.
    """
    check_writable_name(output, "--output")
    model, config = load_model(path, pretrained_path)
    if not isinstance(model, PromptedModel):
        raise UserError(f"{path}: is a {config.arch}, which has no official format to export to")
    if config.sam.encoder_attention != "official":
        raise UserError(
            f"{path}: encoder_attention is '{config.sam.encoder_attention}', which segment_anything does not have"
        )
    adapters.merge(model)
    state = model.base_state()
    if config.arch == SAM2_ARCH and config.pretrained_path is not None:
        state = {**_memory(config.pretrained_path), **state}
    if half:
        state = {key: value.half() for key, value in state.items()}
    with atomic_path(output) as temporary:
        if output.suffix in TORCH_SUFFIXES:
            torch.save({"model": state} if config.arch == SAM2_ARCH else state, temporary)
        else:
            save_file({key: value.contiguous() for key, value in state.items()}, temporary)


def _memory(base: Path) -> dict[str, Tensor]:
    """The keys of a SAM2 file that no image needs; none where the base is a weights file of this project."""
    content, metadata = read_tensor_file(base)
    if checkpoint.as_weights(content, metadata) is not None:
        return {}
    return unwrapped_state_dict(content, base)
