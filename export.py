"""A trained model in other programs' formats."""

from pathlib import Path

import torch
from safetensors.torch import save_file

import adapters
from model import load_model
from prompt_adapted_segment_anything import SAM_PREFIXES
from utils.errors import UserError
from utils.files import atomic_path
from utils.tensor_files import TORCH_SUFFIXES, check_writable_name


def export_sam(path: Path, output: Path, half: bool = False, pretrained_path: Path | None = None) -> None:
    """Writes the merged model as a SAM state dict, which segment_anything built at the same image size loads strictly.

    The text prompt has no place in that format and is left out.

    Args:
        path: a weights file of this project.
        output: .safetensors, or .pth as segment_anything's own loader expects.
        half: store float16.
        pretrained_path: where the base weights lie now, if they have moved since training.

    Raises:
        UserError: the model attends as the released code does, which segment_anything's encoder cannot.
    """
    check_writable_name(output, "--output")
    model, config = load_model(path, pretrained_path)
    if config.sam.encoder_attention != "official":
        raise UserError(
            f"{path}: encoder_attention is '{config.sam.encoder_attention}', which segment_anything does not have"
        )
    adapters.merge(model)
    state = {key: value for key, value in model.state_dict().items() if key.startswith(SAM_PREFIXES)}
    if half:
        state = {key: value.half() for key, value in state.items()}
    with atomic_path(output) as temporary:
        if output.suffix in TORCH_SUFFIXES:
            torch.save(state, temporary)
        else:
            save_file({key: value.contiguous() for key, value in state.items()}, temporary)
