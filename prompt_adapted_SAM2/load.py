"""Loads the image part of SAM 2 and SAM 2.1 state dicts and ignores the memory; accounts for every key."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from checkpointing.load_report import LoadReport, load_keys
from networks.hf_names import is_hf
from prompt_adapted_SAM2.hf import HF_MEMORY, check_hf_config, from_hf
from utils.errors import UserError

# Our module names, and a SAM2 file's.
_OFFICIAL_NAMES = {
    "image_encoder.": "image_encoder.",
    "prompt_encoder.": "sam_prompt_encoder.",
    "mask_decoder.": "sam_mask_decoder.",
    "no_mem_embed": "no_mem_embed",
}
_MEMORY = (
    "memory_attention.",
    "memory_encoder.",
    "mask_downsample.",
    "maskmem_tpos_enc",
    "no_mem_pos_enc",
    "no_obj_ptr",
    "no_obj_embed_spatial",
    "obj_ptr_proj.",
    "obj_ptr_tpos_proj.",
    *HF_MEMORY,
)
# (width, number of blocks) of the trunk.
_TRUNKS = {
    (24, 9): "nano",
    (96, 12): "tiny",
    (96, 16): "small",
    (112, 24): "base_plus",
    (144, 48): "large",
}


def load_sam2(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> LoadReport:
    """Loads a SAM2 state dict into `model` (image_encoder, prompt_encoder, mask_decoder, no_mem_embed), in place.

    It resizes nothing: the trunk interpolates its positions to the image size in every forward pass.

    Args:
        state: under the sam2 package's names, or those of transformers' Sam2Model or Sam2VideoModel.
        path: the file that the state came from, for errors; transformers' config.json may lie beside it.

    Raises:
        UserError: the state is of another architecture (the message says which), or a key is missing, unexpected or of
            another shape.
    """
    target = official_names(model.state_dict())
    copies: list[str] = []
    if hugging_face := is_hf(state):
        state, copies = from_hf(state, path)
    _check_architecture(state, target, path)
    if hugging_face:
        check_hf_config(path, model)
    ours = {theirs: mine for mine, theirs in _OFFICIAL_NAMES.items()}
    renamed = {_renamed(key, ours) or key: value for key, value in state.items()}
    wanted = {_renamed(key, ours) or key: value for key, value in target.items()}
    report = load_keys(
        model, renamed, wanted, path, is_unused=lambda key: key.startswith(_MEMORY), why_unused="the video memory"
    )
    report.copies = copies
    return report


def official_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The part of a model's state dict that a SAM2 file contains, under the file's names."""
    return {name: value for key, value in state.items() if (name := _renamed(key, _OFFICIAL_NAMES))}


def sam2_type_of(state: Mapping[str, Tensor]) -> str | None:
    """The sam_type of a SAM2 state dict, by its trunk's width and depth; None for another network's."""
    pos_embed = state.get("image_encoder.trunk.pos_embed")
    if pos_embed is None or pos_embed.dim() != 4:
        return None
    blocks = {key.split(".")[3] for key in state if key.startswith("image_encoder.trunk.blocks.")}
    return _TRUNKS.get((pos_embed.shape[1], len(blocks)))


def _renamed(key: str, names: Mapping[str, str]) -> str | None:
    return next((new + key[len(old) :] for old, new in names.items() if key.startswith(old)), None)


def _check_architecture(state: Mapping[str, Tensor], target: Mapping[str, Tensor], path: Path) -> None:
    found, wanted = sam2_type_of(state), sam2_type_of(target)
    if found == wanted:
        return
    if found is not None:
        raise UserError(
            f"{path}: is a SAM2 of sam_type '{found}', the config asks for '{wanted}'; set sam.sam_type: {found}"
        )
    if {"image_encoder.pos_embed", "vision_encoder.pos_embed"} & set(state):
        raise UserError(f"{path}: is a SAM file, the config asks for SAM2; set arch: Prompt Adapted SAM")
    first = next(iter(state))
    raise UserError(f"{path}: is no SAM2 weights file (its first key is '{first}')")
