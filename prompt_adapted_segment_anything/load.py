"""Loads SAM state dicts, resized to the model's image size; accounts for every key."""

from collections.abc import Mapping
from pathlib import Path

from torch import Size, Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from checkpointing.load_report import LoadReport, load_keys
from networks.hf_names import is_hf
from prompt_adapted_segment_anything.build import GEOMETRIES, SamGeometry
from prompt_adapted_segment_anything.hf import check_hf_config, from_hf
from utils.config.options import PosEmbedResize
from utils.errors import UserError

SAM_PREFIXES = ("image_encoder.", "prompt_encoder.", "mask_decoder.")


def load_sam(
    model: nn.Module, state: Mapping[str, Tensor], path: Path, pos_embed_resize: PosEmbedResize = "bicubic"
) -> LoadReport:
    """Loads a SAM state dict into `model` (modules image_encoder, prompt_encoder, mask_decoder), in place.

    It resizes pos_embed and the relative positions if the model's image size is not the state's.

    Args:
        state: under segment_anything's names, or those of transformers' SamModel.
        path: the file that the state came from, for errors; transformers' config.json may lie beside it.

    Raises:
        UserError: the state is of another architecture (the message says which), or a key is missing, unexpected or of
            another shape.
    """
    target = {key: value for key, value in model.state_dict().items() if key.startswith(SAM_PREFIXES)}
    copies: list[str] = []
    if hugging_face := is_hf(state):
        state, copies = from_hf(state, path)
    _check_architecture(state, target, path)
    if hugging_face and (sam_type := sam_type_of(target)):
        check_hf_config(path, GEOMETRIES[sam_type])
    report = load_keys(
        model,
        state,
        target,
        path,
        fit=lambda key, value, shape: _fit(key, value, shape, pos_embed_resize),
        is_unused=lambda key: ".rel_pos_" in key,
        why_unused="relative positions, encoder_attention: released",
    )
    report.copies = copies
    return report


def sam_type_of(state: Mapping[str, Tensor]) -> str | None:
    """The key of GEOMETRIES for a state dict, by its width and depth; None for another network's."""
    pos_embed = state.get("image_encoder.pos_embed")
    if pos_embed is None or pos_embed.dim() != 4:
        return None
    depth = len({key.split(".")[2] for key in state if key.startswith("image_encoder.blocks.")})
    for name, geometry in GEOMETRIES.items():
        if (pos_embed.shape[-1], depth) == (geometry.embed_dim, geometry.depth):
            return name
    return None


def _check_architecture(state: Mapping[str, Tensor], target: Mapping[str, Tensor], path: Path) -> None:
    found, wanted = sam_type_of(state), sam_type_of(target)
    if found == wanted:
        return
    if found is None and {"image_encoder.trunk.pos_embed", "vision_encoder.backbone.pos_embed"} & set(state):
        raise UserError(f"{path}: is a SAM2 file, the config asks for SAM; set arch: Prompt Adapted SAM 2")
    if found is None:
        first = next(iter(state))
        raise UserError(
            f"{path}: is no SAM weights file (its first key is '{first}'); official ones hold image_encoder.pos_embed"
        )
    raise UserError(
        f"{path}: is a SAM of sam_type '{found}', the config asks for '{wanted}'; set sam.sam_type: {found}"
    )


def resized_state(
    state: Mapping[str, Tensor], geometry: SamGeometry, img_size: int, pos_embed_resize: PosEmbedResize = "bicubic"
) -> dict[str, Tensor]:
    """A SAM's official state dict for images of `img_size`: its pos_embed and global relative positions resized."""
    grid = img_size // geometry.patch_size
    resized = dict(state)
    resized["image_encoder.pos_embed"] = resize_pos_embed(
        state["image_encoder.pos_embed"], (grid, grid), pos_embed_resize
    )
    for block in geometry.global_attn_indexes:
        for axis in "hw":
            key = f"image_encoder.blocks.{block}.attn.rel_pos_{axis}"
            resized[key] = resize_rel_pos(state[key], 2 * grid - 1)
    return resized


def _fit(key: str, value: Tensor, shape: Size, pos_embed_resize: PosEmbedResize) -> Tensor:
    if value.shape == shape:
        return value
    if key == "image_encoder.pos_embed" and value.dim() == len(shape) and value.shape[-1] == shape[-1]:
        return resize_pos_embed(value, (shape[1], shape[2]), pos_embed_resize)
    if ".rel_pos_" in key and value.dim() == len(shape) and value.shape[-1] == shape[-1]:
        return resize_rel_pos(value, shape[0])
    return value


def resize_pos_embed(pos_embed: Tensor, grid: tuple[int, int], how: PosEmbedResize = "bicubic") -> Tensor:
    """(1, h, w, C) -> (1, *grid, C). "avg_pool" is the released SALT code's method."""
    channels_first = pos_embed.permute(0, 3, 1, 2)
    if how == "avg_pool":
        resized = adaptive_avg_pool2d(channels_first, grid)
    else:
        resized = interpolate(channels_first, size=grid, mode="bicubic", antialias=True, align_corners=False)
    return resized.permute(0, 2, 3, 1).contiguous()


def resize_rel_pos(rel_pos: Tensor, length: int) -> Tensor:
    """(2 h - 1, d) -> (length, d), linearly, as segment_anything does at run time if the sizes differ."""
    return interpolate(rel_pos.T[None], size=length, mode="linear")[0].T.contiguous()
