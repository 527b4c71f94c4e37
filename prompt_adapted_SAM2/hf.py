"""SAM2 as Hugging Face's transformers has it (`Sam2Model`, `Sam2VideoModel`): parameter names and config.json."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from sam2.modeling.backbones.hieradet import Hiera
from torch import Tensor

from checkpointing.hugging_face import check_config
from networks.hf_names import POSITIONS, POSITIONS_COPY, SHARED_RULES, HfNames, Rule, head_rules

# The video memory's modules and parameters in transformers.
HF_MEMORY = (
    "memory_",
    "mask_downsample.",
    "object_pointer_proj.",
    "temporal_positional_encoding_projection_layer.",
    "no_memory_positional_encoding",
    "no_object_pointer",
    "occlusion_spatial_embedding_parameter",
)
_POINTS, _HF_POINTS = "prompt_encoder.point_embeddings.{}.weight", "prompt_encoder.point_embed.weight"
_POINT_KINDS = 4  # background, foreground and a box's two corners: one tensor in transformers

_TRUNK, _BACKBONE = "image_encoder.trunk", "vision_encoder.backbone"
_DECODER = "mask_decoder.transformer"
_ATTENTIONS = (
    f"{_DECODER}.layers.*.self_attn",
    f"{_DECODER}.layers.*.cross_attn_token_to_image",
    f"{_DECODER}.layers.*.cross_attn_image_to_token",
    f"{_DECODER}.final_attn_token_to_image",
)
_RULES: list[Rule] = [
    (f"{_TRUNK}.patch_embed.proj.", f"{_BACKBONE}.patch_embed.projection."),
    (f"{_TRUNK}.blocks.*.norm1.", f"{_BACKBONE}.blocks.*.layer_norm1."),
    (f"{_TRUNK}.blocks.*.norm2.", f"{_BACKBONE}.blocks.*.layer_norm2."),
    (f"{_TRUNK}.blocks.*.mlp.layers.0.", f"{_BACKBONE}.blocks.*.mlp.proj_in."),
    (f"{_TRUNK}.blocks.*.mlp.layers.1.", f"{_BACKBONE}.blocks.*.mlp.proj_out."),
    (f"{_TRUNK}.", f"{_BACKBONE}."),
    ("image_encoder.neck.convs.*.conv.", "vision_encoder.neck.convs.*."),
    ("no_mem_embed", "no_memory_embedding"),
    (f"{_DECODER}.layers.*.mlp.layers.0.", f"{_DECODER}.layers.*.mlp.proj_in."),
    (f"{_DECODER}.layers.*.mlp.layers.1.", f"{_DECODER}.layers.*.mlp.proj_out."),
    *[(f"{attention}.out_proj.", f"{attention}.o_proj.") for attention in _ATTENTIONS],
    *head_rules("mask_decoder.pred_obj_score_head"),
    *SHARED_RULES,
]
_NAMES = HfNames(_RULES)


def from_hf(state: Mapping[str, Tensor], path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """As `HfNames.from_hf`, under the names of `Prompt_Adapted_SAM2`."""
    renamed, copies = _NAMES.from_hf(state, path)
    if (points := renamed.get(_HF_POINTS)) is not None and points.shape[0] == _POINT_KINDS:
        del renamed[_HF_POINTS]
        renamed |= {_POINTS.format(i): point[None] for i, point in enumerate(points)}
    return renamed, copies


def to_hf(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a `Prompt_Adapted_SAM2` under transformers' names."""
    state = dict(state)
    points = torch.cat([state.pop(_POINTS.format(i)) for i in range(_POINT_KINDS)])
    renamed = _NAMES.to_hf(state)
    return {**renamed, _HF_POINTS: points, POSITIONS_COPY: renamed[POSITIONS].clone()}


def check_hf_config(path: Path, model: Any) -> None:
    """Raises UserError if the config.json beside a weights file describes another network than `model`.

    Args: `model` is a `Prompt_Adapted_SAM2`.
    """
    check_config(path, _hidden_numbers(model))


def _hidden_numbers(model: Any) -> dict[str, Any]:
    """What the shapes of the weights do not show."""
    trunk: Hiera = model.image_encoder.trunk
    heads = trunk.blocks[0].attn.num_heads
    backbone = {
        "blocks_per_stage": _stages(trunk),
        "num_attention_heads_per_stage": [heads * 2**stage for stage in range(len(trunk.stage_ends))],
        "window_size_per_stage": list(trunk.window_spec),
        "global_attention_blocks": list(trunk.global_att_blocks),
    }
    decoder = {"num_attention_heads": model.mask_decoder.transformer.num_heads}
    return {"vision_config": {"backbone_config": backbone}, "mask_decoder_config": decoder}


def _stages(trunk: Hiera) -> list[int]:
    """The number of blocks of each stage."""
    return [end - before for before, end in pairwise([-1, *trunk.stage_ends])]


def hf_config(model: Any, img_size: int) -> dict[str, Any]:
    """The config.json with which transformers builds this model at `img_size`, computing the same."""
    trunk, decoder, hidden = model.image_encoder.trunk, model.mask_decoder, _hidden_numbers(model)
    widths = [int(width) for width in reversed(trunk.channel_list)]
    dim = decoder.transformer_dim
    return {
        "architectures": ["Sam2Model"],
        "model_type": "sam2",
        "vision_config": {
            "model_type": "sam2_vision_model",
            "backbone_config": {
                **hidden["vision_config"]["backbone_config"],
                "model_type": "sam2_hiera_det_model",
                "hidden_size": widths[0],
                "num_attention_heads": trunk.blocks[0].attn.num_heads,
                "embed_dim_per_stage": widths,
                "image_size": [img_size, img_size],
                "window_positional_embedding_background_size": list(trunk.window_pos_embed_bkg_spatial_size),
            },
            "backbone_channel_list": widths[::-1],
            "backbone_feature_sizes": [[img_size // stride] * 2 for stride in (4, 8, 16)],
            "fpn_hidden_size": dim,
        },
        "prompt_encoder_config": {"hidden_size": dim, "image_size": img_size},
        "mask_decoder_config": {
            **hidden["mask_decoder_config"],
            "hidden_size": dim,
            "iou_head_hidden_dim": dim,
            "mlp_dim": decoder.transformer.mlp_dim,
        },
    }
