"""Exports a trained model to other formats."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

import adapters
from checkpointing import weights_file
from checkpointing.tensor_files import read_tensor_file, unwrapped_state_dict, write_tensors
from evaluation.threshold import Threshold
from networks.base import SegmentationModel
from networks.hf_names import is_hf
from networks.prompted import PromptedModel
from prompt_adapted_segment_anything import GEOMETRIES, resized_state
from utils.config import Config
from utils.config.options import SAM2_ARCH
from utils.errors import UserError


def export_sam(
    model: SegmentationModel,
    config: Config,
    checkpoint: Path,
    output: Path,
    half: bool = False,
    img_size: int | None = None,
) -> dict[str, Tensor]:
    """Writes the merged model as an official state dict: the stock package, built at the same size, loads it strictly.

    For SAM2 the base file's memory modules come along, where it has them; its .pt holds {"model": state dict}, as the
    package expects. The text prompt has no place in these formats and is left out.

    Args:
        model, config: as `model.load_trained` returns them; the model's adapters are merged in place.
        checkpoint: the weights file that they come from.
        output: .safetensors, or .pth as segment_anything's own loader expects.
        half: store float16.
        img_size: as for `official_state`.

    Returns:
        What was written, by official names.

    Raises:
        UserError: as `official_state` does.
    """
    state = official_state(model, config, checkpoint, img_size)
    if config.arch == SAM2_ARCH and model.base_sha256 and config.pretrained_path is not None:
        state = {**_memory(config.pretrained_path), **state}
    state = halved(state) if half else state
    write_tensors(output, state, None, {"model": state} if config.arch == SAM2_ARCH else state)
    return state


def official_state(
    model: SegmentationModel, config: Config, checkpoint: Path, img_size: int | None = None
) -> dict[str, Tensor]:
    """The merged model under official names.

    Args:
        img_size: the image size that SAM's positions are resized to, by default the model's own. SAM2 resizes its own.

    Raises:
        UserError: the model attends as the released code does, which segment_anything's encoder cannot; it has a
            detail head, or adapters that cannot be merged; or it is a baseline, which has no such format.
    """
    if not isinstance(model, PromptedModel):
        raise UserError(f"{checkpoint}: is a {config.arch}, which has no official format to export to")
    if model.detail_head is not None:
        raise UserError(
            f"{checkpoint}: has a detail head (sam.mask_head), which the official code cannot hold; "
            "--format full and onnx keep it"
        )
    adapters.merge(model)
    if any(adapters.adapted_layers(model)):
        raise UserError(
            f"{checkpoint}: has adapters that cannot be merged ({config.strategy}), which the official code cannot "
            "hold; --format full and onnx keep them"
        )
    if config.sam.encoder_attention != "official":
        raise UserError(
            f"{checkpoint}: encoder_attention is '{config.sam.encoder_attention}', which segment_anything does not have"
        )
    state = model.base_state()
    if img_size is None or img_size == model.img_size or config.arch == SAM2_ARCH:
        return state
    return resized_state(state, GEOMETRIES[config.sam.sam_type], img_size, config.sam.pos_embed_resize)


def export_full(model: SegmentationModel, config: Config, checkpoint: Path, output: Path, half: bool = False) -> None:
    """Writes the merged model as a weights file of this project that needs no base weights and no CLIP.

    `model.load_model` and every command that takes a checkpoint read it. Its config has no adapters and no strategy,
    unless its adapters cannot be merged.

    Args: as for `export_sam`; `output` ends in .safetensors.
    """
    epoch = weights_file.read_weights(checkpoint).metadata["epoch"]
    adapters.merge(model)
    # Keeps only the names of files and folders: where they lie means nothing on another machine.
    base = None if config.pretrained_path is None else Path(config.pretrained_path.name)
    plain: dict[str, Any] = {"pretrained_path": base}
    if not any(adapters.adapted_layers(model)):
        plain |= {"strategy": "none", "decoder_training": False, "ft": type(config.ft)()}
    if config.evaluation.threshold == "val":  # not chosen yet, and nothing is trained that could choose it
        plain["evaluation"] = Threshold.of(config.evaluation).replacing(config.evaluation)
    if (data := config.data) is not None:
        root = Path(data.root_path.name or "data")
        plain["data"] = data.model_copy(update={"root_path": root, "data_split_csv": root / "data_split.csv"})
    if (clip := config.prompts.clip_path) is not None:
        plain["prompts"] = config.prompts.model_copy(update={"clip_path": Path(clip.name)})
    state = weights_file.trained_state(model, everything=True)
    metadata = {
        "config": config.model_copy(update=plain).to_yaml(),
        "base_sha256": "",
        "clip_sha256": model.clip_sha256,
        "epoch": epoch,
    }
    weights_file.save_weights(output, halved(state) if half else state, metadata)


def halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.half() if value.is_floating_point() else value for key, value in state.items()}


def _memory(base: Path) -> dict[str, Tensor]:
    """The keys of a SAM2 file that no image needs; none where the base is no official file."""
    content, metadata = read_tensor_file(base)
    if weights_file.as_weights(content, metadata) is not None:
        return {}
    state = unwrapped_state_dict(content, base)
    return {} if is_hf(state) else state
