"""A trained model in other programs' formats."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

import adapters
from checkpointing import weights_file
from checkpointing.tensor_files import TORCH_SUFFIXES, check_writable_name, read_tensor_file, unwrapped_state_dict
from model import load_trained
from networks.prompted import PromptedModel
from utils.config.options import SAM2_ARCH
from utils.errors import ConfigError, UserError
from utils.files import atomic_path

FORMATS = ("sam", "onnx", "full")


def export(kind: str, path: Path, output: Path, half: bool = False, pretrained_path: Path | None = None) -> str:
    """Writes a trained model to `output` in one of FORMATS; returns what there is to say about the file.

    Args:
        path: a weights file of this project.
        half: store float16; not for onnx.
        pretrained_path: where the base weights lie now, if they have moved since training.

    Raises:
        UserError: as `export_sam`, `export_full` or `export_onnx.export_onnx`.
    """
    if kind == "onnx":
        if half:
            raise ConfigError("--half: is for the formats sam and full")
        from prediction.export_onnx import export_onnx

        return export_onnx(path, output, pretrained_path)
    if kind == "full":
        export_full(path, output, half, pretrained_path)
    else:
        export_sam(path, output, half, pretrained_path)
    return f"written: {output}"


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
    model, config = load_trained(path, pretrained_path)
    if not isinstance(model, PromptedModel):
        raise UserError(f"{path}: is a {config.arch}, which has no official format to export to")
    if config.sam.encoder_attention != "official":
        raise UserError(
            f"{path}: encoder_attention is '{config.sam.encoder_attention}', which segment_anything does not have"
        )
    adapters.merge(model)
    state = model.base_state()
    if config.arch == SAM2_ARCH and model.base_sha256:
        state = {**_memory(config.pretrained_path), **state}
    state = _halved(state) if half else state
    with atomic_path(output) as temporary:
        if output.suffix in TORCH_SUFFIXES:
            torch.save({"model": state} if config.arch == SAM2_ARCH else state, temporary)
        else:
            save_file({key: value.contiguous() for key, value in state.items()}, temporary)


def export_full(path: Path, output: Path, half: bool = False, pretrained_path: Path | None = None) -> None:
    """Writes the merged model as a weights file of this project that needs no base weights and no CLIP.

    `model.load_model` and every command that takes a checkpoint read it. Its config has no adapters and no strategy.

    Args: as for `export_sam`; `output` ends in .safetensors.
    """
    if output.suffix != ".safetensors" or output.is_dir():
        raise ConfigError(f"--output {output}: must be a file name that ends in .safetensors")
    saved = weights_file.read_weights(path).metadata
    model, config = load_trained(path, pretrained_path)
    adapters.merge(model)
    # Only the name of the base is kept: its folder means nothing elsewhere, and nothing reads it.
    base = None if config.pretrained_path is None else Path(config.pretrained_path.name)
    plain = {"strategy": "none", "decoder_training": False, "ft": type(config.ft)(), "pretrained_path": base}
    state = weights_file.trained_state(model, everything=True)
    metadata = {
        "config": config.model_copy(update=plain).to_yaml(),
        "base_sha256": "",
        "clip_sha256": model.clip_sha256,
        "epoch": saved["epoch"],
    }
    weights_file.save_weights(output, _halved(state) if half else state, metadata)


def _halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.half() if value.is_floating_point() else value for key, value in state.items()}


def _memory(base: Path) -> dict[str, Tensor]:
    """The keys of a SAM2 file that no image needs; none where the base is a weights file of this project."""
    content, metadata = read_tensor_file(base)
    if weights_file.as_weights(content, metadata) is not None:
        return {}
    return unwrapped_state_dict(content, base)
