"""SAM as Hugging Face's transformers has it (`SamModel`): parameter names and config.json."""

from pathlib import Path
from typing import Any

from checkpointing.hugging_face import check_config
from networks.hf_names import SHARED_RULES, HfNames, Rule
from prompt_adapted_segment_anything.build import SamGeometry

_RULES: list[Rule] = [
    ("image_encoder.pos_embed", "vision_encoder.pos_embed"),
    ("image_encoder.patch_embed.proj.", "vision_encoder.patch_embed.projection."),
    ("image_encoder.blocks.*.norm1.", "vision_encoder.layers.*.layer_norm1."),
    ("image_encoder.blocks.*.norm2.", "vision_encoder.layers.*.layer_norm2."),
    ("image_encoder.blocks.*.", "vision_encoder.layers.*."),
    ("image_encoder.neck.0.", "vision_encoder.neck.conv1."),
    ("image_encoder.neck.1.", "vision_encoder.neck.layer_norm1."),
    ("image_encoder.neck.2.", "vision_encoder.neck.conv2."),
    ("image_encoder.neck.3.", "vision_encoder.neck.layer_norm2."),
    ("prompt_encoder.point_embeddings.*.", "prompt_encoder.point_embed.*."),
    *SHARED_RULES,
]
_NAMES = HfNames(_RULES)
from_hf, to_hf = _NAMES.from_hf, _NAMES.to_hf


def check_hf_config(path: Path, geometry: SamGeometry) -> None:
    """Raises UserError if the config.json beside a weights file describes another network than `geometry`."""
    check_config(path, _hidden_numbers(geometry))


def _hidden_numbers(geometry: SamGeometry) -> dict[str, Any]:
    """What the shapes of the weights do not show."""
    return {
        "vision_config": {
            "num_attention_heads": geometry.num_heads,
            "window_size": geometry.window_size,
            "global_attn_indexes": list(geometry.global_attn_indexes),
        },
        "mask_decoder_config": {"num_attention_heads": geometry.decoder_heads},
    }


def hf_config(geometry: SamGeometry, img_size: int) -> dict[str, Any]:
    """The config.json with which transformers builds this model at `img_size`, computing the same."""
    sizes = {"image_size": img_size, "patch_size": geometry.patch_size}
    hidden = _hidden_numbers(geometry)
    return {
        "architectures": ["SamModel"],
        "model_type": "sam",
        "vision_config": {
            **hidden["vision_config"],
            **sizes,
            "hidden_size": geometry.embed_dim,
            "mlp_dim": 4 * geometry.embed_dim,
            "num_hidden_layers": geometry.depth,
            "output_channels": geometry.prompt_dim,
            "num_pos_feats": geometry.prompt_dim // 2,
        },
        "prompt_encoder_config": {**sizes, "hidden_size": geometry.prompt_dim},
        "mask_decoder_config": {
            **hidden["mask_decoder_config"],
            "hidden_size": geometry.prompt_dim,
            "iou_head_hidden_dim": geometry.prompt_dim,
            "mlp_dim": geometry.decoder_mlp_dim,
            "layer_norm_eps": 1e-5,  # segment_anything's; transformers' default is 1e-6
        },
    }
